"""A cold start: the bundle's files leave the page cache, then loading and the first run are timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewise.runtime.model import load
from edgewise.runtime.profile.samples import samples_of

_DROPPED = "dropped for the bundle's files; the engine's library may still be in memory"


def cold_start(order: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Carry out a worker's order once; gives ``load_ms``, ``first_run_ms`` and ``page_cache``: that it was dropped, or why not.

    Raises:
        EdgewiseError: the bundle cannot be loaded or run.
    """
    tell({"progress": ["start cold", 0, None]})
    dropped = drop_page_cache(Path(order["path"]))
    start = time.perf_counter_ns()
    model = load(order["path"], threads=order["threads"], function=order["function"])
    loaded = time.perf_counter_ns()
    sample = samples_of(model, order["samples"])[0]
    begin = time.perf_counter_ns()
    model.run(sample)
    end = time.perf_counter_ns()
    return {"load_ms": (loaded - start) / 1e6, "first_run_ms": (end - begin) / 1e6, "page_cache": dropped}


def drop_page_cache(path: Path) -> str:
    """Ask the system to forget a bundle's files (``posix_fadvise``, which needs no rights), and look whether it did."""
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return "kept: this system has no posix_fadvise"
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    kept = [file.name for file in files if not _forgotten(file)]
    return f"kept: the file system holds on to {kept[0]}" if kept else _DROPPED


def _forgotten(file: Path) -> bool:
    """Whether the first byte would have to be read from the disk now."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)  # what is not written yet cannot be dropped
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(handle, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # asking may have begun to read ahead
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return file.stat().st_size == 0
