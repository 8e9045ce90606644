"""What each layer of a network takes at several densities on this machine, as the table that ``edgewise prune --costs`` reads.

    python benchmarks/costs.py m.onnx -o costs.json                        libedgewise, one thread, blocks of 4x4, int8
    python benchmarks/costs.py m.onnx -o costs.json --pattern block:4x1 --density 0.25 --density 0.5 --calib DATA --preprocess …

For each density the network is pruned by magnitude (which layers stay fast does not depend on which zeros there are), quantized
and built for the CPU, and every layer is timed. A layer of the engine that takes in several of the network's (a Relu, an
addition) counts for the weights in it. The least of three rounds is written; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

_ROUNDS = 3


def layer_times_ms(model: str, folder: Path, density: float, options: argparse.Namespace) -> dict[str, float]:
    """The least median of each engine layer over the rounds, by the engine's name for it."""
    import edgewise

    source = model
    if density < 1:
        source = str(folder / "pruned.onnx")
        edgewise.prune(model, source, pattern=options.pattern, sparsity=1 - density, criterion="magnitude")
    rounded = str(folder / "rounded.onnx")
    given: dict[str, Any] = (
        {"calib": options.calib} if options.calib else {"allow_random_calibration": True, "rounding": "squant"}
    )
    edgewise.quantize(source, rounded, target="cpu", device=options.device, preprocess=options.preprocess, **given)
    bundle = folder / f"{density:g}.edge"
    edgewise.build(rounded, bundle, target="cpu", device=options.device, options={"engine": "native"})
    found: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for layer in edgewise.profile(bundle, threads=1, per_layer=True)["layers"]:
            found[layer["name"]] = min(layer["median_ms"], found.get(layer["name"], float("inf")))
    return found


def table(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """The table; layers that the engine does not time under their own name are named on stderr."""
    import onnx_ir as ir

    from edgewise.quantize.layers import constant_of
    from edgewise.quantize.pruning.matrices import weight_value, weighted_layers

    densities = sorted({*options.density, 1.0})
    with tempfile.TemporaryDirectory() as folder:
        times = {density: layer_times_ms(model, Path(folder), density, options) for density in densities}
    entries = []
    for layer in weighted_layers(ir.load(model).graph):
        name, weights = str(layer.node.name), constant_of(weight_value(layer))
        costs = [[density, times[density][name]] for density in densities if name in times[density]]
        if len(costs) < 2 or weights is None:
            print(f"{name}: not timed on its own", file=sys.stderr)
            continue
        entries.append({"name": name, "op": layer.node.op_type, "weight": list(weights.shape), "costs": costs})
    return {"schema_version": 1, "unit": "ms", "pattern": options.pattern, "layers": entries}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pattern", default="block:4x4")
    parser.add_argument("--density", type=float, action="append", help="default: 0.25 and 0.5; 1 is always measured")
    parser.add_argument("--device", help="a device profile of the target cpu")
    parser.add_argument("--calib", help="DATA; without it random numbers, which change no time")
    parser.add_argument("--preprocess")
    options = parser.parse_args()
    options.density = options.density or [0.25, 0.5]
    made = table(options.model, options)
    options.output.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0 if made["layers"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
