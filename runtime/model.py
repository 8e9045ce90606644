"""A bundle, ready to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.compare import TensorParity, compare_outputs
from edgewise.runtime.dlpack import CPU, borrow, to_library
from edgewise.runtime.engines import (
    Engine,
    LayerTime,
    PhasedEngine,
    PlannedEngine,
    RunOptions,
    TensorEngine,
    TimedEngine,
    TracedEngine,
    open_engine,
)
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec


def load(path: Path | str, *, threads: int = 0, per_layer: bool = False, function: str = "") -> Model:
    """Open a bundle (folder or zip), check its digests and get its engine ready.

    Args:
        path: ``NAME.edge`` or a zip of it.
        threads: threads within an operator; 0 means all cores.
        per_layer: record what each layer takes, which slows the runs down.
        function: what to compute, of an engine that computes several things; empty: the network itself.

    Raises:
        RunError: not a bundle, damaged, or this machine cannot run it.
        MissingExtraError: the engine's library is not installed.
    """
    if threads < 0:
        raise RunError(
            "cannot load the bundle",
            where=str(path),
            found=f"{threads} threads",
            expected="0 (all cores) or more",
            fix="Change the number",
        )
    bundle = open_bundle(path)
    if function and function not in bundle.functions:
        raise RunError(
            "the bundle has no such function",
            where=str(path),
            found=repr(function),
            expected=f"one of {', '.join(bundle.functions)}"
            if bundle.functions
            else "no function: it computes one network",
            fix="Change the name, or leave it out for the network itself",
        )
    return Model(bundle, open_engine(bundle, RunOptions(threads, per_layer, function)), function)


class Model:
    """An opened bundle. One context: not for two threads at once.

    Attributes:
        bundle: where it comes from, with its manifest.
        function: which of the bundle's; empty: the network itself.
        inputs: what :meth:`run` takes.
        outputs: what :meth:`run` gives.
    """

    def __init__(self, bundle: Bundle, engine: Engine, function: str = "") -> None:
        self.bundle, self.function, self._engine = bundle, function, engine
        computed = bundle.functions[function] if function else bundle
        self.inputs: list[TensorSpec] = computed.inputs
        self.outputs: list[TensorSpec] = computed.outputs

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays by input name to arrays by output name.

        Tensors of torch, CuPy or JAX (anything with ``__dlpack__``) go in without a copy, on the GPU too where the engine
        runs there, and the outputs are of the same library, without a copy.

        Raises:
            RunError: missing or unknown inputs, another dtype or shape, or the engine fails.
        """
        foreign = [
            array for array in inputs.values() if not isinstance(array, np.ndarray) and hasattr(array, "__dlpack__")
        ]
        if foreign:
            return self._run_foreign(inputs, foreign[0])
        outputs = self._engine.run(self._checked(inputs))
        self._check_outputs(outputs)
        return outputs

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], dict[str, np.ndarray]]:
        """Check numpy inputs once; what is returned runs the engine on them and checks nothing, for loops that are timed.

        Raises:
            RunError: missing or unknown inputs, another dtype or shape.
        """
        return partial(self._engine.run, self._checked(inputs))

    def timed(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], int]:
        """As :meth:`prepare`, but what is returned gives the nanoseconds that a run took.

        libedgewise is timed as a C program with bound buffers would time it; of other engines the time has their Python in it.

        Raises:
            RunError: missing or unknown inputs, another dtype or shape.
        """
        if isinstance(self._engine, TimedEngine):
            return partial(self._engine.time, self._checked(inputs))
        return partial(_time, self.prepare(inputs))

    def check(self) -> list[TensorParity]:
        """Run the bundle's own samples and compare with the source network's outputs for them.

        Raises:
            RunError: the bundle has no reference data, or an output has another shape.
        """
        inputs, references = self.bundle.reference(self.function)
        return compare_outputs(references, [self.run(sample) for sample in inputs])

    def phase_times(self) -> dict[str, float]:
        """Median milliseconds of copying to the GPU, computing and copying back; empty for engines without such parts."""
        return self._engine.phase_times() if isinstance(self._engine, PhasedEngine) else {}

    def memory(self) -> dict[str, int]:
        """What an engine of libedgewise takes, for the shapes of the last run or the only ones that there are; empty for other engines.

        ``weights_bytes`` are mapped from the file, ``arena_bytes`` are activations and scratch, ``least_arena_bytes`` what no
        placement of them could do without: the most that is alive at one operator.

        Raises:
            RunError: a dim is free, and nothing has run yet.
        """
        return self._engine.memory() if isinstance(self._engine, PlannedEngine) else {}

    def layer_times(self) -> list[LayerTime]:
        """What each layer took in the runs so far; needs ``per_layer=True``, else empty. May end the recording."""
        return self._engine.layer_times()

    def inner_names(self) -> list[str]:
        """The tensors inside the network that :meth:`inner` gives, in the order in which they are computed; most engines give none."""
        return self._engine.inner_names() if isinstance(self._engine, TracedEngine) else []

    def inner(self, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        """Run, and give inner tensors under the network's names; float32 where they are integers that stand for real numbers.

        Raises:
            RunError: as :meth:`run`, or a tensor that the engine does not give.
        """
        if not isinstance(self._engine, TracedEngine) or not set(names) <= set(self._engine.inner_names()):
            raise RunError(
                "the engine does not give these tensors", where=str(self.bundle.path), found=", ".join(names),
                expected="names that inner_names() lists", fix="Choose among them",
            )  # fmt: skip
        return self._engine.inner(self._checked(inputs), names)

    def facts(self) -> dict[str, str]:
        """Library, version and unit."""
        return self._engine.facts()

    def _run_foreign(self, inputs: Mapping[str, Any], example: Any) -> dict[str, Any]:
        engine = self._engine
        if not isinstance(engine, TensorEngine) or all(map(_lies_on_processor, inputs.values())):
            arrays = {name: _on_processor(name, array, self.bundle) for name, array in inputs.items()}
            return to_library(self.run(arrays), example)
        self._check_names(inputs)
        tensors = {name: borrow(array, engine.stream) for name, array in inputs.items()}
        lengths: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            empty = np.broadcast_to(np.empty((), tensors[spec.name].dtype), tensors[spec.name].shape)
            spec.check(empty, str(self.bundle.path))
            _check_dims(spec, empty, lengths, str(self.bundle.path))
        return to_library(engine.run_tensors(tensors), example)

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        names = [spec.name for spec in self.inputs]
        if set(inputs) != set(names):
            raise RunError(
                "the inputs have other names than the network's",
                where=str(self.bundle.path),
                found=", ".join(map(str, inputs)) or "no inputs",
                expected=", ".join(names),
                fix="Pass one array per input, by its name",
            )

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        where = str(self.bundle.path)
        self._check_names(inputs)
        lengths: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            array = inputs[spec.name]
            if not isinstance(array, np.ndarray):
                raise RunError(
                    f"input {spec.name!r} does not fit", where=where, found=type(array).__name__, expected="a numpy array",
                    fix="Convert it with numpy.asarray",
                )  # fmt: skip
            spec.check(array, where)
            _check_dims(spec, array, lengths, where)
        # Engines read plain memory: native byte order, without gaps.
        return {
            spec.name: np.asarray(inputs[spec.name], dtype=inputs[spec.name].dtype.newbyteorder("="), order="C")
            for spec in self.inputs
        }

    def _check_outputs(self, outputs: dict[str, np.ndarray]) -> None:
        for spec in self.outputs:
            array = outputs.get(spec.name)
            if array is None or not spec.fits(array):
                raise RunError(
                    "the engine gives something else than the manifest says",
                    where=f"{self.bundle.path}, output {spec.name!r}",
                    found="nothing" if array is None else f"{array.dtype.name}{list(array.shape)}",
                    expected=f"{spec.dtype}{list(spec.shape)}".replace("'", ""),
                    fix="Build the bundle again",
                )


def _time(run: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


def _on_processor(name: str, array: Any, bundle: Bundle) -> np.ndarray:
    """A view of a tensor in the processor's memory."""
    if not _lies_on_processor(array):
        raise RunError(
            f"input {name!r} does not fit", where=str(bundle.path),
            found=f"a tensor on DLPack device {tuple(map(int, array.__dlpack_device__()))}",
            expected="one in the processor's memory: this engine does not run on a GPU", fix="Move it with .cpu()",
        )  # fmt: skip
    return array if isinstance(array, np.ndarray) else np.from_dlpack(array)


def _lies_on_processor(array: Any) -> bool:
    return isinstance(array, np.ndarray) or (
        hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] == CPU
    )


def _check_dims(spec: TensorSpec, array: np.ndarray, lengths: dict[str, tuple[int, str]], where: str) -> None:
    """A symbolic dim has one length throughout."""
    for dim, have in zip(spec.shape, array.shape, strict=True):
        if isinstance(dim, int):
            continue
        length, other = lengths.setdefault(dim, (have, spec.name))
        if length != have:
            raise RunError(
                f"the dim {dim!r} has two lengths", where=where, found=f"{length} in {other!r}, {have} in {spec.name!r}",
                expected="the same", fix="Pass arrays that belong together",
            )  # fmt: skip
