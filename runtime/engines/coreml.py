"""The engine ``coreml``: a Core ML package, run through coremltools on a Mac."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.core_ml_ports import KeptState, Port, function_settings, read_ports, read_states
from edgewise.runtime.engines import LayerTime, RunOptions
from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs

# What coremltools calls the units allowed, and the one of them that a network is meant to run on.
_UNITS = {"ALL": "neural engine", "CPU_AND_GPU": "gpu", "CPU_AND_NE": "neural engine", "CPU_ONLY": "cpu"}
_DEVICES = {
    "MLCPUComputeDevice": "cpu",
    "MLGPUComputeDevice": "gpu",
    "MLNeuralEngineComputeDevice": "neural engine",
}


def open_engine(bundle: Bundle, options: RunOptions) -> CoreMlEngine:
    """Compile and load the package for this Mac.

    ``engine.settings``: ``package`` names the package's folder; ``inputs`` and ``outputs`` list its ports
    (:class:`edgewise.runtime.core_ml_ports.Port`); ``compute_units`` (optional) is one of coremltools' names, by default
    ``ALL``. ``options.threads`` has no meaning to Core ML.

    Raises:
        RunError: not a Mac, other settings, or Core ML refuses the package.
        MissingExtraError: coremltools is not installed.
    """
    settings = bundle.manifest["engine"].get("settings", {})
    package, units = settings.get("package"), settings.get("compute_units", "ALL")
    where = f"{bundle.path}, engine.settings"
    if not isinstance(package, str) or not any(name.startswith(f"{package}/") for name in bundle.manifest["files"]):
        raise _unusable(
            where, f"package {package!r}", "the folder of a Core ML package in the bundle", "Build it again"
        )
    if not isinstance(units, str) or units not in _UNITS:
        raise _unusable(where, f"compute_units {units!r}", f"one of {', '.join(_UNITS)}", "Build it again")
    own, place = function_settings(bundle, options.function)
    inputs, outputs = (read_ports(own.get(kind), f"{place}.{kind}") for kind in ("inputs", "outputs"))
    states = read_states(own.get("states"), f"{place}.states")
    if platform.system() != "Darwin":
        raise _unusable(
            str(bundle.path), f"{platform.system()}, which has no Core ML", "a Mac with macOS 12 or later",
            "Copy the bundle to a Mac and run it there",
        )  # fmt: skip
    program = options.function or settings.get("default_function", "main")
    return CoreMlEngine(bundle.path / package, units, inputs, outputs, states, options, program)


class CoreMlEngine:
    """A compiled model. Core ML itself chooses the unit for each operation; ``program`` is the function's name in the package."""

    def __init__(
        self,
        package: Path,
        units: str,
        inputs: list[Port],
        outputs: list[Port],
        states: list[KeptState],
        options: RunOptions,
        program: str = "main",
    ) -> None:
        with needs("coreml"):
            import coremltools
        self._tools, self._package, self._units = coremltools, package, units
        self._inputs, self._outputs, self._states, self._per_layer = inputs, outputs, states, options.per_layer
        self._program = program
        self._run_ms: list[float] = []
        try:
            chosen = {"function_name": options.function} if options.function else {}
            self._model = coremltools.models.MLModel(
                str(package), compute_units=coremltools.ComputeUnit[units], **chosen
            )
        except Exception as error:  # coremltools passes on whatever Core ML says
            raise _refused(package, error) from error

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name to arrays by output name."""
        given = {port.coreml: port.given(inputs[port.name]) for port in self._inputs}
        kept = self._kept(inputs)
        start = time.perf_counter()
        try:
            made = self._model.predict(given) if kept is None else self._model.predict(given, state=kept)
        except Exception as error:  # coremltools passes on whatever Core ML says
            raise _refused(self._package, error) from error
        self._run_ms.append((time.perf_counter() - start) * 1000)
        after = {state.output: kept.read_state(state.coreml).astype(state.dtype) for state in self._states}
        return {port.name: port.made(made.get(port.coreml)) for port in self._outputs} | after

    def _kept(self, inputs: dict[str, np.ndarray]) -> Any:
        """Core ML's own states, filled with what the network would be given; None when there are none."""
        if not self._states:
            return None
        kept = self._model.make_state()
        for state in self._states:
            kept.write_state(state.coreml, inputs[state.name].astype(np.float16))
        return kept

    def layer_times(self) -> list[LayerTime]:
        """Core ML measures no layers; its compute plan tells the unit of each and estimates its share of the whole.

        The times are that share of the median run; ``detail["estimated"]`` says so.
        """
        if not self._per_layer or not self._run_ms:
            return []
        from coremltools.models.compute_plan import MLComputePlan

        units = self._tools.ComputeUnit[self._units]
        plan = MLComputePlan.load_from_path(self._model.get_compiled_model_path(), units)
        operations = plan.model_structure.program.functions[self._program].block.operations
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
