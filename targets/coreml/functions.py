"""Several functions in one package (iOS 18): a prompt and a decode step, say, that share the weights they have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgewise.runtime.bundle import save_reference
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets.base import TargetError
from edgewise.targets.coreml.options import Options, Range, wrong_option
from edgewise.targets.coreml.package import normalize
from edgewise.targets.nodes import tensor_spec

_FIRST = 18
_SAMPLES = 2
_SEED = 0


def function_models(model: ir.Model, options: Options) -> dict[str, ir.Model]:
    """The graph of each function, in order.

    Raises:
        TargetError: before iOS 18, or a first function that is not the network itself.
        RunError: an ONNX file that cannot be read.
    """
    if options.ios < _FIRST:
        raise wrong_option("functions", f"minimum_deployment_target iOS{options.ios}", f"iOS{_FIRST} or later")
    first = next(iter(options.functions))
    if options.functions[first].model:
        raise wrong_option(f"functions.{first}.model", "a graph of its own", "the network itself as the first function")
    return {name: read_onnx(own.model) if own.model else model for name, own in options.functions.items()}


def symbols_of(model: ir.Model) -> set[str]:
    """Names of the symbolic dims of a graph's inputs."""
    dims = (dim for value in model.graph.inputs for dim in value.shape or ())
    return {str(dim.value) for dim in dims if isinstance(dim, ir.SymbolicDim)}


def join(packages: Mapping[str, Path], package: Path) -> None:
    """Make one package of several; a weight that two of them have is stored once. The first is computed by default.

    Raises:
        TargetError: coremltools cannot read or join them.
    """
    from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction

    descriptor = MultiFunctionDescriptor()
    for name, part in packages.items():
        descriptor.add_function(str(part), "main", name)
    descriptor.default_function_name = next(iter(packages))
    try:
        save_multifunction(descriptor, str(package))
    except OSError:
        raise
    except Exception as error:  # coremltools' loader and passes raise whatever they run into
        raise TargetError(
            "coremltools cannot join the functions",
            where=f"build.options.functions: {', '.join(packages)}",
            found=str(error).strip() or type(error).__name__,
            expected="programs that it can read back",
            fix="Build them as packages of their own, and report the models",
        ) from error
    normalize(package)


def parts_folder() -> tempfile.TemporaryDirectory[str]:
    """Where the packages lie that become one."""
    return tempfile.TemporaryDirectory(prefix="edgewise-functions-")


def entry_of(name: str, model: ir.Model, options: Options, folder: Path) -> dict[str, Any]:
    """The function as the manifest's ``engine.functions`` has it; writes its reference into ``folder``.

    The samples are random (seeded), of the sizes that the function is fastest at; their outputs are those of the function's
    own ONNX graph, computed node by node.
    """
    sizes = {dim: default_size(options, dim) for dim in symbols_of(model)}
    specs = [tensor_spec(value) for value in model.graph.inputs]
    sized = [fixed(spec, sizes) for spec in specs]
    samples = [sample.inputs for sample in random_data(sized, _SAMPLES, seed=_SEED)]
    runner = OnnxRunner(model, optimize=False)
    file = f"functions/{name}.npz"
    (folder / file).parent.mkdir(exist_ok=True)
    save_reference(folder / file, samples, [runner.run(sample) for sample in samples])
    outputs = [tensor_spec(value) for value in model.graph.outputs]
    ports = {"inputs": specs, "outputs": outputs}
    listed = {kind: [fixed(spec, options.fixed_dims).to_json() for spec in those] for kind, those in ports.items()}
    return {"name": name, **listed, "reference": file}


def default_size(options: Options, dim: str) -> int:
    """The size of a symbolic dim that the package is compiled for."""
    sizes = options.dims.get(dim, options.sizes_of(dim))
    if isinstance(sizes, int):
        return sizes
    return sizes.default if isinstance(sizes, Range) else sizes.sizes[0]


def fixed(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    """The tensor with these dims as numbers."""
    return TensorSpec(
        spec.name, spec.dtype, tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape)
    )
