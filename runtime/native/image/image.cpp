#include "edgewise_image.h"

#include <cmath>
#include <cstring>

// Resampling as Image.resize(…, BILINEAR) of Pillow 13 computes it (docs/embedding.md): a triangle as wide as an output pixel, weights of 22
// bits, eight bits between the passes. The evaluation runs on Pillow, so its roundings are kept, and its order of the passes.
namespace {

constexpr int kBits = 22;
constexpr int64_t kMostStride = int64_t{1} << 40;  // times the rows it must stay a number
constexpr int32_t kHalf = 1 << (kBits - 1);  // sums stay below 2^31: the weights add up to 2^22, and a few units more

thread_local const char* last_error = "";

ew_status refuse(const char* why, ew_status status = EW_INVALID_ARGUMENT) {
    last_error = why;
    return status;
}

// One direction: the whole image's size, what it is resized to, and the part of that which the crop keeps.
struct Axis {
    int64_t from = 0, to = 0, first = 0, count = 0;

    bool resized() const { return from != to; }
    double scale() const { return static_cast<double>(from) / static_cast<double>(to); }
    double support() const { return scale() < 1 ? 1 : scale(); }
    int64_t taps() const { return 2 * static_cast<int64_t>(std::ceil(support())) + 1; }
};

// Input pixels that make an output pixel, and how much of each; `weights` may be null. Gives the first one.
int64_t window(const Axis& axis, int64_t index, int64_t* count, int32_t* weights) {
    const double scale = axis.scale(), support = axis.support(), step = 1.0 / support;
    const double center = (static_cast<double>(index) + 0.5) * scale;
    int64_t first = static_cast<int64_t>(center - support + 0.5), last = static_cast<int64_t>(center + support + 0.5);
    if (center - support + 0.5 < 0) first = 0;
    if (last > axis.from) last = axis.from;
    *count = last - first;
    if (!weights) return first;
    const auto weight = [&](int64_t i) {
        const double distance = std::fabs((static_cast<double>(i + first) - center + 0.5) * step);
        return distance < 1 ? 1 - distance : 0;
    };
    double sum = 0;
    for (int64_t i = 0; i < *count; ++i) sum += weight(i);
    for (int64_t i = 0; i < *count; ++i) {
        const double share = sum != 0 ? weight(i) / sum : weight(i);
        weights[i] = static_cast<int32_t>(0.5 + share * (1 << kBits));
    }
    return first;
}

uint8_t clip(int32_t sum) {
    const int32_t value = sum >> kBits;
    return static_cast<uint8_t>(value > 255 ? 255 : value);
}

// All that follows from the steps and the image's size. `top` and `rows`: the input's rows that are needed.
struct Layout {
    Axis x, y;
    int64_t channels = 0, stride = 0, top = 0, rows = 0;
    uint64_t column_at = 0, row_at = 0, middle_at = 0, line_at = 0, total = 0;

    bool down_first() const { return y.from > y.to && y.from - y.to > 2 * (x.from - x.to); }
};

bool side(int64_t value) { return value > 0 && value <= EW_MAX_SIDE; }

ew_status check(const ew_preprocess* steps, const ew_image* image) {
    if (!steps || !image || !image->data) return refuse("a null pointer");
    if (!side(image->width) || !side(image->height)) return refuse("an image whose sides are not 1 to 65535 pixels");
    if (image->pixels < EW_PIXELS_GRAY || image->pixels > EW_PIXELS_BGRA) return refuse("pixels of an unknown form");
    if (steps->color < EW_COLOR_RGB || steps->color > EW_COLOR_GRAY) return refuse("an unknown color");
    if (steps->resize_height < 0 || steps->resize_width < 0 || (steps->resize_width > 0 && steps->resize_height == 0)) {
        return refuse("a resize that is neither a side nor a height and a width");
    }
    if (steps->crop_height < 0 || steps->crop_width < 0 || (steps->crop_height == 0) != (steps->crop_width == 0)) {
        return refuse("a crop that is not a height and a width");
    }
    if (!(steps->scale > 0) || std::isinf(steps->scale)) return refuse("a scale that is not above 0");
    for (int i = 0; i < 3; ++i) {
        if (!std::isfinite(steps->mean[i]) || !std::isfinite(steps->std[i]) || steps->std[i] == 0) {
            return refuse("a mean or std that is no number, or a std of 0");
        }
    }
    return EW_OK;
}

// Half to even, as Python rounds.
int64_t margin(int64_t whole, int64_t part) {
    const int64_t twice = whole - part, down = twice / 2;
    return twice % 2 == 0 || down % 2 == 0 ? down : down + 1;
}

ew_status sizes(const ew_preprocess* steps, const ew_image* image, Layout* made) {
    Axis &x = made->x, &y = made->y;
    x.from = x.to = image->width;
    y.from = y.to = image->height;
    if (steps->resize_width > 0) {
        x.to = steps->resize_width;
        y.to = steps->resize_height;
    } else if (steps->resize_height > 0) {
        const int64_t shorter = x.from < y.from ? x.from : y.from;
        x.to = steps->resize_height * x.from / shorter;
        y.to = steps->resize_height * y.from / shorter;
    }
    if (!side(x.to) || !side(y.to)) return refuse("a resize to more than 65535 pixels a side");
    x.count = steps->crop_width > 0 ? steps->crop_width : x.to;
    y.count = steps->crop_height > 0 ? steps->crop_height : y.to;
    if (x.count > x.to || y.count > y.to) return refuse("a crop that is larger than the resized image");
    x.first = margin(x.to, x.count);
    y.first = margin(y.to, y.count);
    return EW_OK;
}

uint64_t aligned(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

// The image's rows that the output's rows are made of.
void find_rows(Layout* made) {
    made->top = made->y.first;
    made->rows = made->y.count;
    if (!made->y.resized()) return;
    int64_t count = 0;
    made->top = window(made->y, made->y.first, &count, nullptr);
    const int64_t last = window(made->y, made->y.first + made->y.count - 1, &count, nullptr);
    made->rows = last + count - made->top;
}

// Workspace: per output column its first pixel, how many, and their weights; the weights of one output row; a row of pixels; what lies
// between the passes, which is all rows when they come first, and the sums of one row otherwise; a line of the output.
void place(Layout* made) {
    const auto wide = static_cast<uint64_t>(made->x.count * made->channels), whole = static_cast<uint64_t>(made->x.from * made->channels);
    const uint64_t columns = made->x.resized() ? static_cast<uint64_t>(made->x.count * (made->x.taps() + 2)) : 0;
    made->column_at = aligned(columns * sizeof(int32_t));
    made->row_at = made->column_at + (made->y.resized() ? aligned(static_cast<uint64_t>(made->y.taps()) * sizeof(int32_t)) : 0);
    made->middle_at = made->row_at + aligned(whole);
    made->line_at = made->middle_at + aligned(made->down_first() ? whole * sizeof(int32_t) : wide * static_cast<uint64_t>(made->rows));
    made->total = made->line_at + wide;
}

ew_status lay_out(const ew_preprocess* steps, const ew_image* image, Layout* made) {
    static const int64_t kBytes[] = {1, 3, 3, 4, 4};
    ew_status status = check(steps, image);
    if (status == EW_OK) status = sizes(steps, image, made);
    if (status != EW_OK) return status;
    const int64_t least = kBytes[image->pixels] * image->width;
    made->channels = steps->color == EW_COLOR_GRAY ? 1 : 3;
    made->stride = image->stride_bytes ? image->stride_bytes : least;
    if (made->stride < least || made->stride > kMostStride) return refuse("a stride_bytes that is less than a row, or no stride at all");
    find_rows(made);
    place(made);
    return made->total <= SIZE_MAX / 2 ? EW_OK : refuse("an image that does not fit into memory", EW_OUT_OF_MEMORY);
}

// One row of the image with the channels that are wanted, red first. Grey has PIL's weights (ITU-R 601-2).
void convert(const uint8_t* from, ew_pixels pixels, int64_t width, int64_t channels, uint8_t* to) {
    const bool reversed = pixels == EW_PIXELS_BGR || pixels == EW_PIXELS_BGRA;
    const int64_t step = pixels == EW_PIXELS_GRAY ? 1 : pixels < EW_PIXELS_RGBA ? 3 : 4;
    for (int64_t i = 0; i < width; ++i, from += step, to += channels) {
        const uint8_t r = step == 1 ? from[0] : from[reversed ? 2 : 0];
        const uint8_t g = step == 1 ? from[0] : from[1];
        const uint8_t b = step == 1 ? from[0] : from[reversed ? 0 : 2];
        if (channels == 3) {
            to[0] = r, to[1] = g, to[2] = b;
        } else {
            to[0] = step == 1 ? r : static_cast<uint8_t>((r * 19595u + g * 38470u + b * 7471u + 0x8000u) >> 16);
        }
    }
}

void all_columns(const Layout& layout, int32_t* columns) {
    for (int64_t i = 0; i < layout.x.count; ++i, columns += layout.x.taps() + 2) {
        int64_t count = 0;
        columns[0] = static_cast<int32_t>(window(layout.x, layout.x.first + i, &count, columns + 2));
        columns[1] = static_cast<int32_t>(count);
    }
}

// The pixels of a row that the output has.
void resample_row(const Layout& layout, const int32_t* columns, const uint8_t* row, uint8_t* to) {
    const int64_t channels = layout.channels, stride = layout.x.taps() + 2;
    if (!layout.x.resized()) {
        std::memcpy(to, row + layout.x.first * channels, static_cast<size_t>(layout.x.count * channels));
        return;
    }
    for (int64_t i = 0; i < layout.x.count; ++i, columns += stride) {
        const uint8_t* from = row + columns[0] * channels;
        for (int64_t c = 0; c < channels; ++c) {
            int32_t sum = kHalf;
            for (int32_t k = 0; k < columns[1]; ++k) sum += columns[2 + k] * from[k * channels + c];
            *to++ = clip(sum);
        }
    }
}

// A line of the output, from rows that are as wide as it.
void resample_column(const Layout& layout, int64_t index, int32_t* weights, const uint8_t* middle, uint8_t* to) {
    const int64_t wide = layout.x.count * layout.channels;
    if (!layout.y.resized()) {
        std::memcpy(to, middle + index * wide, static_cast<size_t>(wide));
        return;
    }
    int64_t count = 0;
    const uint8_t* from = middle + (window(layout.y, layout.y.first + index, &count, weights) - layout.top) * wide;
    for (int64_t i = 0; i < wide; ++i) {
        int32_t sum = kHalf;
        for (int64_t k = 0; k < count; ++k) sum += weights[k] * from[k * wide + i];
        to[i] = clip(sum);
    }
}

// A row that is as wide as the image, and is one of the output's.
void squeeze(const Layout& layout, const ew_image& image, int64_t index, int32_t* weights, int32_t* sums, uint8_t* row) {
    const int64_t whole = layout.x.from * layout.channels;
    int64_t count = 0;
    const int64_t first = window(layout.y, layout.y.first + index, &count, weights);
    for (int64_t i = 0; i < whole; ++i) sums[i] = kHalf;
    for (int64_t k = 0; k < count; ++k) {
        convert(image.data + (first + k) * layout.stride, image.pixels, layout.x.from, layout.channels, row);
        for (int64_t i = 0; i < whole; ++i) sums[i] += weights[k] * row[i];
    }
    for (int64_t i = 0; i < whole; ++i) row[i] = clip(sums[i]);
}

// What each of the 256 values becomes, per channel of the output.
void tabulate(const ew_preprocess& steps, float table[3][256]) {
    for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < 256; ++i) table[c][i] = (static_cast<float>(i) / steps.scale - steps.mean[c]) / steps.std[c];
    }
}

// A line into the planes of the output.
void spread(const Layout& layout, ew_color color, const float table[3][256], const uint8_t* line, float* output) {
    for (int64_t c = 0; c < layout.channels; ++c, output += layout.x.count * layout.y.count) {
        const int64_t source = color == EW_COLOR_BGR ? 2 - c : c;
        for (int64_t k = 0; k < layout.x.count; ++k) output[k] = table[c][line[k * layout.channels + source]];
    }
}

}  // namespace

ew_status ew_preprocess_plan(const ew_preprocess* steps, const ew_image* image, ew_prepared* prepared) {
    Layout layout;
    if (!prepared) return refuse("a null pointer");
    if (const ew_status status = lay_out(steps, image, &layout)) return status;
    const uint64_t count = static_cast<uint64_t>(layout.channels) * static_cast<uint64_t>(layout.x.count) * static_cast<uint64_t>(layout.y.count);
    if (count > SIZE_MAX / 2 / sizeof(float)) return refuse("an output that does not fit into memory", EW_OUT_OF_MEMORY);
    *prepared = {static_cast<int32_t>(layout.channels), static_cast<int32_t>(layout.y.count), static_cast<int32_t>(layout.x.count),
                 static_cast<size_t>(count) * sizeof(float), static_cast<size_t>(layout.total)};
    return EW_OK;
}

ew_status ew_preprocess_run(const ew_preprocess* steps, const ew_image* image, float* output, size_t bytes, void* workspace,
                            size_t workspace_bytes) {
    ew_prepared prepared;
    if (const ew_status status = ew_preprocess_plan(steps, image, &prepared)) return status;
    if (!output || !workspace || reinterpret_cast<uintptr_t>(workspace) % 8) return refuse("an output or workspace that is null or not aligned");
    if (bytes != prepared.output_bytes) return refuse("an output of another size than output_bytes");
    if (workspace_bytes < prepared.workspace_bytes) return refuse("a workspace of less than workspace_bytes");
    Layout layout;
    lay_out(steps, image, &layout);
    auto* memory = static_cast<uint8_t*>(workspace);
    auto *columns = reinterpret_cast<int32_t*>(memory), *weights = reinterpret_cast<int32_t*>(memory + layout.column_at);
    auto* sums = reinterpret_cast<int32_t*>(memory + layout.middle_at);
    uint8_t *row = memory + layout.row_at, *middle = memory + layout.middle_at, *line = memory + layout.line_at;
    if (layout.x.resized()) all_columns(layout, columns);
    for (int64_t i = 0; i < layout.rows && !layout.down_first(); ++i) {
        convert(image->data + (layout.top + i) * layout.stride, image->pixels, image->width, layout.channels, row);
        resample_row(layout, columns, row, middle + i * layout.x.count * layout.channels);
    }
    float table[3][256];
    tabulate(*steps, table);
    for (int64_t i = 0; i < layout.y.count; ++i) {
        if (layout.down_first()) {
            squeeze(layout, *image, i, weights, sums, row);
            resample_row(layout, columns, row, line);
        } else {
            resample_column(layout, i, weights, middle, line);
        }
        spread(layout, steps->color, table, line, output + i * layout.x.count);
    }
    return EW_OK;
}

const char* ew_preprocess_error() { return last_error; }
