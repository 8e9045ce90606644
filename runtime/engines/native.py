"""The engine ``native``: an engine file of libedgewise, run on this machine's processor."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.engines import LayerTime, RunOptions, model_file
from edgewise.runtime.errors import RunError
from edgewise.runtime.native_tensors import InnerTensor

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_EXTENSION = "edgewise.runtime._native"
# By ew_status (runtime/native/include/edgewise.h): what was expected, and what the user can do.
_ADVICE = {
    1: ("arrays and options that fit the network", "Pass arrays of the shapes that the manifest names"),
    2: ("an engine file that can be read", "Check that the file is there and may be read"),
    3: ("a whole engine file of this format", "Build the bundle again, or update edgewise"),
    4: ("a processor and a library for which the engine was built", "Build the bundle again with --device for this machine"),
    5: ("enough memory", "Free some memory, use a smaller batch or fewer threads"),
    6: ("one thread at a time", "Load the bundle once per thread"),
}  # fmt: skip
_NO_ADVICE = ("a status that this version knows", "Update edgewise")


def open_engine(bundle: Bundle, options: RunOptions) -> NativeEngine:
    """Map the engine file and get a context ready.

    ``engine.settings.model`` names the file. Optional keys of ``engine.settings``: ``macs`` maps names of layers to their
    multiply-accumulates, for the profile; ``tensors`` maps names of inner tensors to where they lie (``native_tensors.py``).

    Raises:
        RunError: the extension is not there, or libedgewise refuses the file.
    """
    return open_file(model_file(bundle), bundle, options)


def open_file(file: Path, bundle: Bundle, options: RunOptions) -> NativeEngine:
    """As :func:`open_engine`, of an engine file of the bundle's network that lies elsewhere."""
    settings = bundle.manifest["engine"].get("settings", {})
    names = [[spec.name for spec in specs] for specs in (bundle.inputs, bundle.outputs)]
    told = {key: settings[key] for key in ("macs", "tensors") if isinstance(settings.get(key), dict)}
    return NativeEngine(file, names, options, **told)


class NativeEngine:
    """One context of libedgewise."""

    def __init__(
        self,
        file: Path,
        names: list[list[str]],
        options: RunOptions,
        macs: Mapping[str, Any] = _EMPTY,
        tensors: Mapping[str, Any] = _EMPTY,
    ) -> None:
        native = _library(str(file))
        self._file, self._macs, self._per_layer, self._failure = file, macs, options.per_layer, native.NativeError
        self._tensors = tensors
        self._version, self._isas = native.version(), native.isas()
        try:
            engine = native.Engine(str(file))
            self._context = native.Context(engine, threads=options.threads, profile=options.per_layer)
        except native.NativeError as error:
            self._refuse("cannot open the engine file", error)
        self._inputs, self._outputs = ([port[0] for port in ports] for ports in (engine.inputs, engine.outputs))
        self._shapes = {name: shape for name, _, shape in engine.inputs}
        found = [sorted(self._inputs), sorted(self._outputs)]
        if found != [sorted(part) for part in names]:
            raise RunError(
                "the engine file is of another network than the manifest", where=str(file), found=f"inputs and outputs {found}",
                expected=str([sorted(part) for part in names]), fix="Build the bundle again",
            )  # fmt: skip
        self._total_ns: list[int] = []
        self._run_ns: list[list[int]] = []

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name to arrays by output name."""
        made = self._call(self._context.run, inputs)
        return dict(zip(self._outputs, made, strict=True))

    def time(self, inputs: dict[str, np.ndarray]) -> int:
        """Nanoseconds of a run, from ``ew_run`` called to its return: the inputs lie there already, the outputs stay where they are."""
        took: int = self._call(self._context.time, inputs)
        return took

    def inner_names(self) -> list[str]:
        """The tensors inside the network that :meth:`inner` gives."""
        return list(self._tensors)

    def inner(self, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        """Run, and copy what these tensors are when they are computed, as ONNX has them: real numbers where they are 8 bits."""
        symbols = {
            size: length
            for name, shape in self._shapes.items()
            for size, length in zip(shape, inputs[name].shape, strict=True)
            if isinstance(size, str)
        }
        try:
            told = [InnerTensor(**self._tensors[name]) for name in names]
            places = [(one.op, one.output) for one in told]
            made = self._context.trace([inputs[name] for name in self._inputs], places)
            return {name: one.array(memory, symbols) for name, one, memory in zip(names, told, made, strict=True)}
        except self._failure as error:
            self._refuse("the engine cannot run", error)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise RunError(
                "the manifest does not say where an inner tensor lies", where=f"{self._file}, engine.settings.tensors", found=str(error),
                expected="an entry that fits the engine", fix="Build the bundle again",
            ) from error  # fmt: skip

    def layer_times(self) -> list[LayerTime]:
        """Per operator, in the order in which they run; the median leaves the first run out when there are others.

        ``detail["kernel"]`` is what computed it, ``detail["macs"]`` what the layer multiplies, or None.
        """
        kept = self._run_ns[1:] or self._run_ns
        if not kept:
            return []
        return [
            LayerTime(
                name,
                op,
                "cpu",
                statistics.median(run[index] for run in kept) / 1e6,
                {"kernel": kernel, "macs": self._macs.get(name), "runs": len(kept)},
            )
            for index, (name, op, kernel, _, _) in enumerate(self._context.profile())
        ]

    def memory(self) -> dict[str, int]:
        """As ``ew_memory`` in edgewise.h."""
        try:
            return dict(self._context.memory())
        except self._failure as error:
            self._refuse("what memory the engine takes is not known", error)

    def facts(self) -> dict[str, str]:
        """Library, its version, unit, instruction sets that it uses here, and the kernels that were picked, if any."""
        facts = {"library": "libedgewise", "version": self._version, "unit": "cpu", "isas": self._isas}
        kernels = sorted({kernel for _, _, kernel, _, _ in self._context.profile() if kernel})
        return facts | {"kernels": " ".join(kernels)} if kernels else facts

    def _call(self, compute: Callable[[list[np.ndarray]], Any], inputs: dict[str, np.ndarray]) -> Any:
        try:
            made = compute([inputs[name] for name in self._inputs])
        except self._failure as error:
            self._refuse("the engine cannot run", error)
        if self._per_layer:
            self._record()
        return made

    def _record(self) -> None:
        totals = [total for _, _, _, total, _ in self._context.profile()]
        before = self._total_ns or [0] * len(totals)
        self._run_ns.append([after - was for after, was in zip(totals, before, strict=True)])
        self._total_ns = totals

    def _refuse(self, what: str, error: Exception) -> NoReturn:
        status, message = error.args
        expected, fix = _ADVICE.get(status, _NO_ADVICE)
        raise RunError(what, where=str(self._file), found=message, expected=expected, fix=fix) from error


def _library(where: str) -> Any:
    """The extension module, which only an installation with a C++ compiler has."""
    try:
        return importlib.import_module(_EXTENSION)
    except ImportError as error:
        raise RunError(
            "cannot run the engine file", where=where, found=f"no libedgewise ({error})",
            expected=f"the extension module {_EXTENSION}",
            fix="Install a C++ compiler (on Debian: apt-get install g++), then install edgewise again; scripts/setup does it in a checkout",
        ) from error  # fmt: skip
