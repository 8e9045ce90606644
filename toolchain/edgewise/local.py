"""This machine as a device: processor, instruction sets that engines care about, GPU, engines that are installed."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from edgewise.runtime.profile.machine import describe_machine, describe_system

# In /proc/cpuinfo's words, x86 first, then ARM.
_INSTRUCTIONS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_PACKAGES = {
    "edgewise.runtime._native": "libedgewise",
    "onnxruntime": "onnxruntime",
    "coremltools": "coremltools",
    "tensorrt_rtx": "TensorRT for RTX",
    "tensorrt": "TensorRT",
}
_SECONDS = 10


def this_machine() -> dict[str, Any]:
    """What ``edgewise devices`` says of the machine it runs on; None and empty where nothing was found."""
    return {
        "os": describe_system(),
        **describe_machine(),
        "instructions": instructions(Path("/proc/cpuinfo")),
        "gpus": gpus(),
        "engines": [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module)],
        "python": platform.python_version(),
    }


def instructions(cpuinfo: Path) -> list[str]:
    """The vector and matrix instructions that integer kernels use."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    have = set(line[1].split()) if line else set()
    return [name for name in _INSTRUCTIONS if name in have]


def gpus() -> list[str]:
    """NVIDIA GPUs by name, compute capability and driver; empty without ``nvidia-smi`` or when it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip()] if told.returncode == 0 else []
