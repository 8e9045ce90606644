"""What a layer could reach at most on a device: the lesser of its peak in multiply-accumulates and what its memory feeds.

Williams, Waterman, Patterson: Roofline (2009). The peaks are measured by ``edgewise-bench --peak`` (runtime/native/bench/peak.cpp), once per
processor, and kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.progress import Progress
from edgewise.runtime.storage import whole_file

Ask = Callable[[list[str]], dict[str, Any]]

_PEAKS = {"int8": "int8_gmacs_per_s", "float32": "f32_gmacs_per_s", "bfloat16": "bf16_gmacs_per_s"}
_LEAST_BYTES, _MOST_BYTES = 1 << 16, 1 << 28
_FORM = 2  # of what is kept; another one is measured anew


def find_peak(measured: dict[str, Any], threads: int, ask: Ask, progress: Progress) -> dict[str, Any]:
    """The peaks of the processor that measured, with so many threads.

    The bandwidth is that of reading, again and again, as many bytes as the engine takes (rounded up to a power of two): those lie in the same
    cache, or in none.

    Args:
        measured: what the worker or the agent brought back: ``machine``, ``engine.isas``, ``weights_bytes`` and ``arena_bytes``.
        threads: of the engine; 0: as many as there are cores for it.
        ask: runs the agent there with these words, and gives its result.
        progress: told when it has to be measured.

    Returns:
        ``threads, memory_bytes_read, f32_gmacs_per_s, bf16_gmacs_per_s`` (None: the engine has no such kernels there),
        ``int8_gmacs_per_s, memory_gb_per_s``.
    """
    machine = measured["machine"]
    threads = int(threads or machine["cores_available"] or 1)
    takes = measured["weights_bytes"] + measured["arena_bytes"]
    size = min(max(_LEAST_BYTES, 1 << max(0, takes - 1).bit_length()), _MOST_BYTES)
    parts = [_FORM, machine["cpu"], machine["machine"], machine["cores"], measured["engine"]["isas"], threads, size]
    file = _cache() / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.json"
    if (kept := _read(file)) is not None:
        return kept
    progress("measure the processor's peaks", 0, None)
    told = ask(["--peak", str(threads), str(size)])
    peak = {key: told[key] for key in ("threads", "memory_bytes_read", *_PEAKS.values(), "memory_gb_per_s")}
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as draft:
        draft.write_text(json.dumps({"cpu": machine["cpu"], **peak}) + "\n", encoding="utf-8")
    return peak


def roofed(
    layers: Sequence[dict[str, Any]], peak: dict[str, Any] | None, bundle: Bundle | None
) -> list[dict[str, Any]]:
    """Layers of a profile with ``attainable_gmacs_per_s, of_attainable`` (achieved over attainable) and ``bound``: compute or memory.

    All three are None where the multiply-accumulates, the precision or the peak is not known. A layer whose bytes are not known is held
    against the arithmetic alone.
    """
    built = bundle.manifest["engine"].get("layers", []) if bundle is not None else []
    # The engine's record has an entry for each operator of the plan, in its order.
    fits = peak is not None and [entry.get("name") for entry in built] == [layer["name"] for layer in layers]
    if not fits or peak is None:
        return [{**layer, "attainable_gmacs_per_s": None, "of_attainable": None, "bound": None} for layer in layers]
    return [{**layer, **_roof(layer, entry, peak)} for layer, entry in zip(layers, built, strict=True)]


def _roof(layer: dict[str, Any], entry: dict[str, Any], peak: dict[str, Any]) -> dict[str, Any]:
    compute = peak.get(_PEAKS.get(entry.get("precision", ""), ""))
    achieved, macs = layer.get("gmacs_per_s"), layer.get("macs")
    if not compute or not achieved or not macs:
        return {"attainable_gmacs_per_s": None, "of_attainable": None, "bound": None}
    size, bandwidth = entry.get("bytes"), peak["memory_gb_per_s"]
    fed = macs / size * bandwidth if size and bandwidth else float("inf")
    attainable = min(compute, fed)
    return {
        "attainable_gmacs_per_s": attainable,
        "of_attainable": achieved / attainable,
        "bound": "memory" if fed < compute else "compute",
    }


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewise" / "peaks"


def _read(file: Path) -> dict[str, Any] | None:
    """None where it is missing or damaged: then it is measured anew."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {key: value for key, value in told.items() if key != "cpu"} if isinstance(told, dict) else None
