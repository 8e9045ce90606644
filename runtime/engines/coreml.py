"""The engine ``coreml``: a Core ML package, run through coremltools on a Mac."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from edgewise.runtime.bundle import Bundle
from edgewise.runtime.engines import LayerTime, RunOptions
from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec

# What coremltools calls the units allowed, and the one of them that a network is meant to run on.
_UNITS = {"ALL": "neural engine", "CPU_AND_GPU": "gpu", "CPU_AND_NE": "neural engine", "CPU_ONLY": "cpu"}
_DEVICES = {
    "MLCPUComputeDevice": "cpu",
    "MLGPUComputeDevice": "gpu",
    "MLNeuralEngineComputeDevice": "neural engine",
}


def open_engine(bundle: Bundle, options: RunOptions) -> CoreMlEngine:
    """Compile and load the package for this Mac.

    ``engine.settings``: ``model`` names the package's folder; ``compute_units`` (optional) is one of coremltools' names, by
    default ``ALL``; ``names`` (optional) maps the network's tensor names to the package's where they differ.
    ``options.threads`` has no meaning to Core ML.

    Raises:
        RunError: not a Mac, other settings, or Core ML refuses the package.
        MissingExtraError: coremltools is not installed.
    """
    settings = bundle.manifest["engine"].get("settings", {})
    model, units, names = settings.get("model"), settings.get("compute_units", "ALL"), settings.get("names", {})
    where = f"{bundle.path}, engine.settings"
    if not isinstance(model, str) or not any(name.startswith(f"{model}/") for name in bundle.manifest["files"]):
        raise _unusable(where, f"model {model!r}", "the folder of a Core ML package in the bundle", "Build it again")
    if units not in _UNITS:
        raise _unusable(where, f"compute_units {units!r}", f"one of {', '.join(_UNITS)}", "Build it again")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise _unusable(where, f"names {names!r}", "a table of names", "Build it again")
    if platform.system() != "Darwin":
        raise _unusable(
            str(bundle.path), f"{platform.system()}, which has no Core ML", "a Mac with macOS 12 or later",
            "Copy the bundle to a Mac and run it there",
        )  # fmt: skip
    return CoreMlEngine(bundle, bundle.path / model, units, names, options)


class CoreMlEngine:
    """A compiled model. Core ML itself chooses the unit for each operation."""

    def __init__(self, bundle: Bundle, package: Path, units: str, names: dict[str, str], options: RunOptions) -> None:
        with needs("coreml"):
            import coremltools
        self._tools, self._package, self._units = coremltools, package, units
        self._names, self._outputs, self._per_layer = names, bundle.outputs, options.per_layer
        self._run_ms: list[float] = []
        try:
            self._model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit[units])
        except Exception as error:  # coremltools passes on whatever Core ML says
            raise _refused(package, error) from error

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name to arrays by output name."""
        given = {self._names.get(name, name): _to_core_ml(name, array) for name, array in inputs.items()}
        start = time.perf_counter()
        try:
            made = self._model.predict(given)
        except Exception as error:  # coremltools passes on whatever Core ML says
            raise _refused(self._package, error) from error
        self._run_ms.append((time.perf_counter() - start) * 1000)
        return {
            spec.name: _from_core_ml(made.get(self._names.get(spec.name, spec.name)), spec) for spec in self._outputs
        }

    def layer_times(self) -> list[LayerTime]:
        """Core ML measures no layers; its compute plan tells the unit of each and estimates its share of the whole.

        The times are that share of the median run; ``detail["estimated"]`` says so.
        """
        if not self._per_layer or not self._run_ms:
            return []
        from coremltools.models.compute_plan import MLComputePlan

        units = self._tools.ComputeUnit[self._units]
        plan = MLComputePlan.load_from_path(self._model.get_compiled_model_path(), units)
        operations = plan.model_structure.program.functions["main"].block.operations
        layers = [_layer(plan, operation, statistics.median(self._run_ms)) for operation in operations]
        return [layer for layer in layers if layer is not None]

    def facts(self) -> dict[str, str]:
        """Library, version, the unit that is meant to run it, the units allowed, and the system whose Core ML it is."""
        return {
            "library": "coremltools",
            "version": str(self._tools.__version__),
            "unit": _UNITS[self._units],
            "units allowed": self._units,
            "macos": platform.mac_ver()[0],
        }


def _to_core_ml(name: str, array: np.ndarray) -> np.ndarray:
    """Core ML takes float16, float32 and int32."""
    if array.dtype.kind == "f":
        return array if array.dtype == np.float16 else array.astype(np.float32)
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise _unusable(
            f"input {name!r}", f"{array.min()} to {array.max()}", "integers of 32 bits", "Core ML has no larger ones"
        )
    return array.astype(np.int32)


def _from_core_ml(array: Any, spec: TensorSpec) -> np.ndarray:
    if array is None:
        raise _unusable(f"output {spec.name!r}", "nothing", "an array", "Build the bundle again")
    values = np.asarray(array)
    # Core ML has fewer widths than ONNX, and no booleans; another kind is for the caller to refuse.
    same_kind = spec.dtype == "bool" or values.dtype.kind == np.dtype(spec.dtype).kind
    return values.astype(spec.dtype) if same_kind else values


def _layer(plan: Any, operation: Any, run_ms: float) -> LayerTime | None:
    """None for constants and other operations that do not run."""
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    if cost is None or usage is None:
        return None
    device = type(usage.preferred_compute_device).__name__
    name = operation.outputs[0].name if operation.outputs else operation.operator_name
    unit = _DEVICES.get(device, device)
    return LayerTime(name, operation.operator_name, unit, cost.weight * run_ms, {"estimated": True})


def _refused(package: Path, error: Exception) -> RunError:
    found = " ".join(f"{type(error).__name__}: {error}".split())
    return _unusable(
        str(package), found, "a package that this system's Core ML takes", "Check that the system is new enough"
    )


def _unusable(where: str, found: str, expected: str, fix: str) -> RunError:
    return RunError("cannot run the Core ML package", where=where, found=found, expected=expected, fix=fix)
