"""``edgewise-bench`` on this machine: what is the same here as on a device is measured by the same program."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.engines import model_file
from edgewise.runtime.errors import RunError

_EXTENSION, _AGENT = "edgewise.runtime._native", "edgewise-bench"
_LIBRARY = "libedgewise"


def run_agent(words: Sequence[str]) -> dict[str, Any]:
    """Run it and give its result.

    Raises:
        RunError: it is not installed, or refuses.
    """
    spec = importlib.util.find_spec(_EXTENSION)
    program = Path(spec.origin).with_name(_AGENT) if spec and spec.origin else None
    if program is None or not program.is_file():
        raise RunError(
            "cannot measure that here", where=_AGENT, found="edgewise was installed without libedgewise", expected=f"{_AGENT} beside it",
            fix="Install a C++ compiler (on Debian: apt-get install g++), then install edgewise again",
        )  # fmt: skip
    done = subprocess.run([str(program), *words], capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        answer = {"error": {"what": f"{_AGENT} ended without an answer", "found": f"exit status {done.returncode}"}}
    if "error" in answer:
        raise RunError(
            answer["error"]["what"], where=" ".join(words[:1]), found=answer["error"]["found"], expected="an engine that runs",
            fix="Run the bundle with edgewise.load to see whether it fails here too",
        )  # fmt: skip
    result: dict[str, Any] = answer["result"]
    return result


def concurrency_here(
    path: Path | str, contexts: Sequence[int], threads: int, samples: Sequence[Any] | None
) -> list[dict[str, Any]]:
    """So many contexts of one engine at once, a second for each number: they share the weights.

    Args:
        path: the bundle.
        contexts: numbers of contexts.
        threads: of each context; 0 means one.
        samples: inputs to run in turn; None: those in the bundle, or random ones.

    Returns:
        For each: ``contexts, runs, throughput_per_s, median_ms, p90_ms, p99_ms, peak_memory_bytes``.

    Raises:
        RunError: not an engine of libedgewise, or it cannot run.
    """
    from edgewise.runtime.devices.reference import write_plain_reference
    from edgewise.runtime.devices.runners.native import samples_in

    bundle = open_bundle(path)
    if (kind := bundle.manifest["engine"].get("kind")) != "native":
        raise RunError(
            "cannot run several contexts at once", where=str(path), found=f"an engine of kind {kind!r}", expected=f"an engine of {_LIBRARY}",
            fix="Leave --concurrency-sweep out, or build with --target cpu --engine native",
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        plain = Path(folder) / "reference.bin"
        write_plain_reference(plain, *((samples, []) if samples is not None else samples_in(bundle)))
        words = ["--check-only", "--threads", str(threads), "--concurrency", ",".join(map(str, contexts))]
        told: list[dict[str, Any]] = run_agent([str(model_file(bundle)), str(plain), *words])["concurrency"]
    return told
