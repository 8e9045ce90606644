#include "conv_tile.h"

#include <algorithm>

namespace ew {
namespace {

// Neighbouring output pixels of one row.
struct TileRow {
    int64_t begin, end;  // columns
    int64_t y, z;        // the input row and slice of the kernel's first position
};

// From what the kernel's first position meets to what another does, in the input.
struct Shift {
    int64_t z, y, x;
};

// A row of outputs is in the middle or at either end of the input, and pieces end with their 16 pixels.
constexpr int64_t kMostPieces = 3 * kMostPixels + kMostPixels / kPiecePixels;

int64_t ceil_divide(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

int64_t make_rows(const ConvGeometry& g, int64_t first, int64_t count, TileRow* rows) {
    if (g.pointwise) {
        rows[0] = {first, first + count, 0, 0};
        return 1;
    }
    const TileRow* begin = rows;
    int64_t line = first / g.out[2], column = first % g.out[2];
    for (int64_t left = count; left > 0; ++line, column = 0) {
        const int64_t end = std::min(g.out[2], column + left);
        *rows++ = {column, end, line % g.out[1] * g.stride[1] - g.pad[1], line / g.out[1] * g.stride[0] - g.pad[0]};
        left -= end - column;
    }
    return rows - begin;
}

Shift shift_of(const ConvGeometry& g, int64_t position) {
    const int64_t column = position % g.kernel[2], line = position / g.kernel[2];
    return {line / g.kernel[1] * g.dilation[0], line % g.kernel[1] * g.dilation[1], column * g.dilation[2] - g.pad[2]};
}

// Whether a row meets the input there, and not padding alone.
bool meets(const ConvGeometry& g, const TileRow& row, const Shift& shift) {
    const int64_t y = row.y + shift.y, z = row.z + shift.z;
    return y >= 0 && y < g.in[1] && z >= 0 && z < g.in[0];
}

// The pieces of a row of a tile, from its first pixel on.
struct Pieces {
    ConvPiece* next;
    int64_t stride;
    int64_t pixel = 0;
    bool any = false;  // of the 16 pixels that are not done

    // `source` -1: padding.
    void add(int64_t count, int64_t source) {
        while (count > 0) {
            const int64_t lane = pixel % kPiecePixels, some = std::min(count, kPiecePixels - lane);
            if (source >= 0) {
                const uint32_t pixels = ((uint32_t{2} << (2 * some - 2)) - 1) << (2 * lane);
                *next++ = {(source - lane * stride) * 4, pixels, static_cast<uint16_t>(((1u << some) - 1) << lane), 0};
                source += some * stride;
                any = true;
            }
            pixel += some, count -= some;
            if (pixel % kPiecePixels == 0) close();
        }
    }
    void close() {
        if (!any) *next++ = {0, 0, 0, 0};
        next[-1].last = 1;
        any = false;
    }
};

// Columns [low, high) of a row meet the input at `source` + column * stride, the others padding.
void add_row(const TileRow& row, int64_t low, int64_t high, int64_t source, Pieces* to) {
    if (low >= high) return to->add(row.end - row.begin, -1);
    to->add(low - row.begin, -1);
    to->add(high - low, source + low * to->stride);
    to->add(row.end - high, -1);
}

// What these rows meet there. `pieces` has room for kMostPieces. Returns how many there are.
int64_t make_pieces(const ConvGeometry& g, const TileRow* rows, int64_t row_count, const Shift& shift, ConvPiece* pieces) {
    Pieces to{pieces, g.stride[2]};
    // All columns that meet the input at this position.
    const int64_t low = ceil_divide(-shift.x, g.stride[2]), high = ceil_divide(g.in[2] - shift.x, g.stride[2]);
    for (const TileRow* row = rows; row != rows + row_count; ++row) {
        const int64_t line = (row->z + shift.z) * g.in[1] + row->y + shift.y;
        if (g.pointwise) to.add(row->end - row->begin, row->begin);
        else if (!meets(g, *row, shift)) to.add(row->end - row->begin, -1);
        else add_row(*row, std::max(low, row->begin), std::min(high, row->end), line * g.in[2] + shift.x, &to);
    }
    if (to.pixel % kPiecePixels != 0) to.close();
    return to.next - pieces;
}

// Positions of the kernel that are packed plane by plane, so that a plane is read once for all of them. Where all rows of the tile
// meet the input, a position's pieces are those of another one in the same column, moved.
struct Batch {
    static constexpr int64_t kSpots = 64, kPieces = 1024, kColumns = 16;

    ConvSpot spots[kSpots];
    ConvPiece pieces[kPieces];
    ConvSpot known[kColumns];  // of a column: pieces (null: none yet), and where in the input they were made
    int64_t spot_count, piece_count;

    void clear() {
        spot_count = piece_count = 0;
        for (ConvSpot& spot : known) spot.pieces = nullptr;
    }
    bool full() const { return spot_count == kSpots || piece_count + kMostPieces > kPieces; }
};

}  // namespace

void fill_tile(const ConvGeometry& g, const ConvKernel& kernel, const ConvFill& fill) {
    TileRow rows[kMostPixels];
    const int64_t row_count = make_rows(g, fill.first, fill.pixels, rows), row_bytes = fill.width * 4;
    Batch batch;
    batch.clear();
    ConvTile tile{fill.x,    fill.plane_bytes, fill.planes, fill.tile,   g.positions * row_bytes,
                  row_bytes, batch.spots,     0,           g.stride[2], fill.fill};
    bool inside = false;
    for (int64_t position = 0; position < g.positions; ++position) {
        const int64_t column = position % g.kernel[2];
        const Shift shift = shift_of(g, position);
        if (column == 0) {
            inside = true;
            for (int64_t row = 0; inside && row < row_count; ++row) inside = meets(g, rows[row], shift);
        }
        if (batch.full()) {
            tile.spot_count = batch.spot_count;
            kernel.fill(tile);
            tile.tile += batch.spot_count * row_bytes;
            batch.clear();
        }
        const int64_t moved = (shift.z * g.in[1] + shift.y) * g.in[2] * 4;
        ConvSpot& spot = batch.spots[batch.spot_count++];
        ConvSpot* known = inside && column < Batch::kColumns ? &batch.known[column] : nullptr;
        if (known && known->pieces) {
            spot = {known->pieces, moved - known->shift};
            continue;
        }
        ConvPiece* pieces = batch.pieces + batch.piece_count;
        spot = {pieces, 0};
        batch.piece_count += make_pieces(g, rows, row_count, shift, pieces);
        if (known) *known = {pieces, moved};
    }
    tile.spot_count = batch.spot_count;
    kernel.fill(tile);
}

}  // namespace ew
