"""The engine ``onnxruntime``: an ONNX or ORT-format model, run by ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.engines import LayerTime, RunOptions, model_file
from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.ort_profile import NodeRecord, node_macs, read_profile
from edgewise.runtime.ort_session import CPU, EXACT_PRODUCTS, QDQ_TO_U8, open_session, run_session

_NO_PREPACKING = {"session.disable_prepacking": "1"}


def open_engine(bundle: Bundle, options: RunOptions) -> OnnxRuntimeEngine:
    """Open the bundle's model.

    ``engine.settings``: ``model`` names the file; ``providers`` (optional) lists ONNX Runtime's execution providers, the
    preferred one first; without it, the processor. ``left_out`` (optional) lists its optimizers that must not rewrite the graph;
    ``exact_products`` (optional) is true where weights are so large that products would saturate on x86 without VNNI.

    Raises:
        RunError: other settings, a provider that this machine lacks, or ONNX Runtime refuses the model.
        MissingExtraError: ONNX Runtime is not installed.
    """
    settings = bundle.manifest["engine"].get("settings", {})
    providers, left_out = settings.get("providers", [CPU]), settings.get("left_out", [])
    for key, names, what in (("providers", providers, "execution providers"), ("left_out", left_out, "optimizers")):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or names == providers == []:
            raise RunError(
                "cannot run the bundle", where=f"{bundle.path}, engine.settings.{key}", found=repr(names),
                expected=f"a list of {what}", fix="Build it again",
            )  # fmt: skip
    if not settings.get("exact_products"):
        return OnnxRuntimeEngine(model_file(bundle), providers, options, left_out)
    # What Q/DQ are left were not merged when it was built; making them u8 may fail.
    return OnnxRuntimeEngine(model_file(bundle), providers, options, [*left_out, QDQ_TO_U8], EXACT_PRODUCTS)


class OnnxRuntimeEngine:
    """A session on the model, and with ``per_layer`` a record of what its kernels took."""

    def __init__(
        self,
        model: Path,
        providers: list[str],
        options: RunOptions,
        left_out: Sequence[str] = (),
        config: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._model, self._providers, self._threads = model, providers, options.threads
        self._left_out, self._config = left_out, config
        self._folder = tempfile.TemporaryDirectory(prefix="edgewise-") if options.per_layer else None
        self._session = self._open("times")
        self._last: dict[str, np.ndarray] = {}
        self._layers: list[LayerTime] | None = None

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by input name to arrays by output name."""
        if self._folder:
            self._last = inputs
        return run_session(self._session, inputs, where=str(self._model))

    def layer_times(self) -> list[LayerTime]:
        """Per node of the optimised graph, from ONNX Runtime's profile; the first call ends the record.

        ``detail["macs"]`` is what the kernel multiplies in a run, with the channels that it pads, or None.
        """
        if self._layers is None:
            self._layers = self._read_layers() if self._last else []
        return self._layers

    def facts(self) -> dict[str, str]:
        """Library, its version, and the unit that is asked to run everything."""
        with needs("cpu"):
            import onnxruntime as ort
        unit = self._providers[0].removesuffix("ExecutionProvider").lower()
        return {"library": "onnxruntime", "version": str(ort.__version__), "unit": unit}

    def _open(self, record: str, config: Mapping[str, str] = MappingProxyType({})) -> Any:
        return open_session(
            self._model,
            where=str(self._model),
            threads=self._threads,
            left_out=self._left_out,
            providers=self._providers,
            profile_prefix=Path(self._folder.name) / record if self._folder else None,
            config={**self._config, **config},
        )

    def _read_layers(self) -> list[LayerTime]:
        records = self._finish(self._session)
        # Kernels pack weights away, and then the profile lacks their shapes: run once more without packing.
        unpacked = self._open("shapes", _NO_PREPACKING)
        run_session(unpacked, self._last, where=str(self._model))
        weights = {record.name: record for record in self._finish(unpacked)}
        return [
            LayerTime(
                record.name,
                record.op,
                record.unit,
                record.median_ms,
                {"macs": node_macs(record, weights.get(record.name)), "runs": len(record.run_us)},
            )
            for record in records
        ]

    def _finish(self, session: Any) -> list[NodeRecord]:
        file = Path(session.end_profiling())
        try:
            return read_profile(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                "cannot read ONNX Runtime's profile", where=str(self._model), found=f"{type(error).__name__}: {error}",
                expected="a list of events", fix="Measure without --per-layer, or with fewer runs",
            ) from error  # fmt: skip
