"""How closely libedgewise follows ONNX Runtime on the same quantized graph, counted in quantization steps.

    python benchmarks/agreement.py                                     every network of accuracy.py and cpu.py
    python benchmarks/agreement.py --network resnet20 --tensors 5      with its five worst tensors
    EDGEWISE_ISA=avx2 python benchmarks/agreement.py --json            by the kernels of another level

ONNX Runtime computes node by node, as ONNX defines it. A tensor is one that QuantizeLinear makes (but those that are only added to
others, and the softmax of attention: libedgewise goes on with them in the same operator). *Alone*: every operator gets ONNX Runtime's own values as inputs, so that its
deviations are its own; this is where the goal, 99.9 % of values within one step, is held. *Whole*: the network runs through, and
what tips at one rounding tips others after it. A step of an output that is not quantized is a 255th of its range. Beside it the outputs in
decibels to those node by node, and those of ONNX Runtime's own optimised graph: what its other roundings lead to.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

HERE = Path(__file__).resolve().parent
# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != HERE]
GOAL = 0.999
_SUFFIX_IN, _SUFFIX_OUT = ".edgewise_in", ".edgewise_out"
_INSIDE = {"Softmax", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather"}
_IMAGES = 4  # that say the ranges
_SENTENCES = "minilm"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """One tensor: how many values there are, which share is within one step, and which share is equal."""

    name: str
    values: int
    within: float
    equal: float


def agreement(model: ir.Model, inputs: Arrays) -> dict[str, list[Agreement]]:
    """Compare tensor by tensor; keys ``alone``, ``whole`` and ``outputs`` (those of the network, run through).

    Args:
        model: quantized, of static shapes. It is not changed.
        inputs: by name.
    """
    from edgewise.runtime.onnx_runner import OnnxRunner

    tapped, steps = _tapped(model)
    wanted = OnnxRunner(tapped, threads=1, optimize=False).run(inputs)
    taps = {name: wanted[name + _SUFFIX_OUT] for name in steps}
    given = {name + _SUFFIX_IN: array for name, array in taps.items()}
    alone = _native(_forced(model), inputs | given)
    whole = _native(tapped, inputs)
    outputs = [value.name or "" for value in model.graph.outputs]
    ranges = {name: float(np.ptp(wanted[name])) / 255 or 1.0 for name in outputs}

    def rows(made: Arrays, inner: bool) -> list[Agreement]:
        if inner:
            return [_row(name, taps[name], made[name + _SUFFIX_OUT], step) for name, step in steps.items()]
        return [_row(name, wanted[name], made[name], ranges[name]) for name in outputs]

    return {
        "alone": rows(alone, True) + rows(alone, False),
        "whole": rows(whole, True),
        "outputs": rows(whole, False),
    }


def share(rows: list[Agreement]) -> float:
    """Of all values of all tensors, those within one step."""
    total = sum(row.values for row in rows)
    return sum(row.values * row.within for row in rows) / total if total else 1.0


def _row(name: str, wanted: np.ndarray, found: np.ndarray, step: float) -> Agreement:
    steps = np.abs(wanted.astype(np.float64) - found) / step
    return Agreement(name, wanted.size, float(np.mean(steps < 1.5)), float(np.mean(steps < 0.5)))


def _native(model: ir.Model, inputs: Arrays) -> Arrays:
    from edgewise.runtime import _native as libedgewise  # type: ignore[attr-defined]
    from edgewise.targets.cpu.native.compile import compile_model
    from edgewise.targets.cpu.native.engine_file import encode
    from edgewise.targets.cpu.native.plan import Isa

    plan = compile_model(model, Isa.GENERIC).plan  # the kernels are the best that the processor has
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.engine"
        path.write_bytes(encode(plan))
        context = libedgewise.Context(libedgewise.Engine(str(path)), threads=1)
        made = context.run([inputs[tensor.name] for tensor in plan.inputs])
    return {tensor.name: array for tensor, array in zip(plan.outputs, made, strict=True)}


# -- graphs with quantized tensors as outputs and inputs


def _cuts(graph: ir.Graph) -> Iterator[ir.Node]:
    """The QuantizeLinear nodes of what an operator of libedgewise gives.

    Not those of inputs, of what was only moved, of the softmax inside attention, and of what is but an operand of an addition.
    """
    for node in graph:
        maker = node.inputs[0].producer() if node.op_type == "QuantizeLinear" else None
        if maker is None or maker.op_type in _INSIDE:
            continue
        backs = [use.node.outputs[0] for use in node.outputs[0].uses()]
        behind = [use.node.op_type for back in backs for use in back.uses()]
        if set(behind) != {"Add"} and not any(back.is_graph_output() for back in backs):
            yield node


def _tapped(model: ir.Model) -> tuple[ir.Model, dict[str, float]]:
    """A copy that gives out every tensor where it may be cut, and the step of each."""
    import onnx_ir as ir

    copy, steps = model.clone(), {}
    for node in list(_cuts(copy.graph)):
        integers = node.outputs[0]
        back = ir.node("DequantizeLinear", [integers, *node.inputs[1:]])
        _give_out(copy.graph, back.outputs[0], f"{integers.name}{_SUFFIX_OUT}", node)
        copy.graph.insert_after(node, back)
        steps[str(integers.name)] = float(node.inputs[1].const_value.numpy())
    return copy, steps


def _forced(model: ir.Model) -> ir.Model:
    """A copy in which those who read such a tensor get an input of the network instead."""
    import onnx_ir as ir

    copy = model.clone()
    first = next(iter(copy.graph))
    for node in list(_cuts(copy.graph)):
        integers = node.outputs[0]
        given = ir.Value(
            name=f"{integers.name}{_SUFFIX_IN}", shape=node.inputs[0].shape, type=ir.TensorType(ir.DataType.FLOAT)
        )
        forward = ir.node("QuantizeLinear", [given, *node.inputs[1:]])
        back = ir.node("DequantizeLinear", [forward.outputs[0], *node.inputs[1:]])
        copy.graph.insert_before(first, [forward, back])
        copy.graph.inputs.append(given)
        for use in list(integers.uses()):
            ir.convenience.replace_all_uses_with(use.node.outputs[0], back.outputs[0])
        _give_out(copy.graph, next(iter(integers.uses())).node.outputs[0], f"{integers.name}{_SUFFIX_OUT}", node)
    return copy


def _give_out(graph: ir.Graph, value: ir.Value, name: str, node: ir.Node) -> None:
    import onnx_ir as ir

    value.name, value.shape, value.type = name, node.inputs[0].shape, ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(value)


# -- networks


def load_script(name: str) -> Any:
    """Another file of this folder."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"benchmarks/{name}.py is missing")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained() -> dict[str, Any]:
    """The networks of accuracy.py that read images or sentences, by name."""
    found = load_script("accuracy").NETWORKS
    return {name: network for name, network in found.items() if network.preprocess or name == _SENTENCES}


def prepared(name: str) -> tuple[ir.Model, Arrays]:
    """A quantized network, and one sample: of its own test images, or random where weights are random."""
    from edgewise.exporter import export
    from edgewise.runtime.data import open_data, random_data
    from edgewise.runtime.preprocess import Preprocess
    from edgewise.runtime.tensors import TensorSpec

    networks = trained()
    if name == _SENTENCES:
        return _sentence(networks[name])
    if name in networks:
        network = networks[name]
        specs = [TensorSpec.parse(network.input)] if network.input else []
        exported = export(network.source, arch=network.arch, inputs=specs, verify=False)
        preprocess = Preprocess.parse(network.preprocess)
        calib, test = (open_data(part, exported.inputs, preprocess) for part in (network.calib, network.test))
        return quantized(exported.model, calib.take(_IMAGES)), next(iter(test)).inputs
    cpu = load_script("cpu")
    size = cpu.SIZES.get(name, 224)
    specs = [TensorSpec("image", "float32", (1, 3, size, size))]
    exported = export(cpu.load_zoo().build(name), inputs=specs, verify=False)
    return quantized(exported.model, random_data(specs, _IMAGES, seed=0)), {"image": cpu.image(size)}


def _sentence(network: Any) -> tuple[ir.Model, Arrays]:
    """A network of any length, quantized with sentences of several, its sizes then fixed to those of one sentence."""
    import onnx
    import onnx_ir as ir

    from edgewise.exporter import export
    from edgewise.runtime.data import open_data

    exported = export(network.source, verify=False)
    inputs = next(iter(open_data(network.test, exported.inputs, None))).inputs
    model = quantized(exported.model, open_data(network.calib, exported.inputs, None))
    for value in model.graph.inputs:
        value.shape = ir.Shape(inputs[str(value.name)].shape)
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    _folded(model)
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)), inputs


def _folded(model: ir.Model) -> None:
    """What shapes say, as constants; weights stay in their integers."""
    from onnxscript import optimizer

    optimizer.fold_constants(
        model,
        onnx_shape_inference=True,
        should_fold=lambda node: False if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None,
    )


def outputs_db(model: ir.Model, inputs: Arrays) -> dict[str, float]:
    """Signal to noise of the worst output beside ONNX Runtime node by node: of libedgewise, and of ONNX Runtime's optimised graph."""
    from edgewise.runtime.compare import compare_outputs
    from edgewise.runtime.onnx_runner import OnnxRunner

    wanted = OnnxRunner(model, threads=1, optimize=False).run(inputs)
    made = {"native": _native(model, inputs), "onnxruntime": OnnxRunner(model, threads=1, optimize=True).run(inputs)}
    return {
        f"{name}_db": round(min(parity.sqnr_db for parity in compare_outputs([wanted], [found])), 1)
        for name, found in made.items()
    }


def quantized(model: ir.Model, data: Any) -> ir.Model:
    """In 8 bits, with ranges of that data."""
    from edgewise.quantize import quantize
    from edgewise.targets import find_device
    from edgewise.targets.cpu import TARGET

    spec = TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu"))
    return quantize(model, spec, data, method="minmax", samples=_IMAGES, allow_random=True).model


def measure(name: str) -> dict[str, Any]:
    """One network's row."""
    model, inputs = prepared(name)
    found = agreement(model, inputs)
    return {
        "network": name,
        "tensors": len(found["alone"]),
        "values": sum(row.values for row in found["alone"]),
        **{f"{kind}_within": share(rows) for kind, rows in found.items()},
        "alone_worst_within": min((row.within for row in found["alone"]), default=1.0),
        "alone_equal": float(
            np.average([row.equal for row in found["alone"]], weights=[row.values for row in found["alone"]])
        ),
        **outputs_db(model, inputs),
        "worst": [vars(row) for row in sorted(found["alone"], key=lambda row: row.within + row.equal)],
    }


def show(row: dict[str, Any], tensors: int) -> None:
    """A row of the table, and the tensors that deviate most."""
    numbers = [
        row[key] for key in ("alone_within", "alone_worst_within", "alone_equal", "whole_within", "outputs_within")
    ]
    print(
        f"{row['network']:30} {row['tensors']:4} {row['values']:10} "
        + " ".join(f"{100 * one:9.4f}" for one in numbers)
        + f" {row['native_db']:7} {row['onnxruntime_db']:7}",
        flush=True,
    )
    for one in row["worst"][:tensors]:
        print(
            f"    {one['name']}: {one['values']} values, {100 * one['within']:.4f} % within a step, {100 * one['equal']:.4f} % equal"
        )


def main() -> int:
    """Print the table, or JSON; 1 when a tensor falls short of the goal."""
    cpu = load_script("cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", default=[], choices=[*trained(), *cpu.NETWORKS])
    parser.add_argument("--tensors", type=int, default=0, help="also print that many tensors that deviate most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print(
            f"{'network, % of values':30} {'':4} {'values':>10} {'alone':>9} {'worst':>9} {'equal':>9} {'whole':>9} {'outputs':>9} {'dB':>7} {'ORT, dB':>7}"
        )
    rows = []
    for name in options.network or [*trained(), *cpu.NETWORKS]:
        if name in trained() and (missing := load_script("accuracy").absent(trained()[name])):
            print(f"{name}: skipped, {missing} is absent", file=sys.stderr)
            continue
        rows.append(measure(name))
        if not options.json:
            show(rows[-1], options.tensors)
    if options.json:
        print(json.dumps({"schema_version": 1, "rows": rows}, indent=1))
    return 0 if all(row["alone_worst_within"] >= GOAL for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
