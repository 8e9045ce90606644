// embed ENGINE: runs a network with one float32 input and output on zeros, and prints its largest output.
#include <algorithm>
#include <cstdio>
#include <edgewise.hpp>

int main(int count, char** arguments) try {
    if (count != 2) return std::fprintf(stderr, "usage: embed ENGINE\n"), 2;
    edgewise::Engine engine(arguments[1]);
    edgewise::Context context(engine, {1, 0, 0});
    const edgewise::Tensor input = engine.inputs().at(0);
    size_t size = 1;
    for (const int64_t dim : input.dims) size *= static_cast<size_t>(dim);
    const std::vector<float> image(size);
    context.write(0, edgewise::Span<const float>(image));
    context.run();
    const std::vector<float> scores = context.read<float>(0);
    const auto best = std::max_element(scores.begin(), scores.end());
    std::printf("class %td, score %g\n", best - scores.begin(), *best);
} catch (const edgewise::Error& error) {
    return std::fprintf(stderr, "embed: %s\n", error.what()), 1;
}
