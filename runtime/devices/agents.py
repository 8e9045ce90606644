"""The agent for a device: ``edgewise-bench``, built for the device's processor with Zig's C++ compiler and kept in a cache."""

from __future__ import annotations

import os
from pathlib import Path

from edgewise.runtime.devices.cross import AGENT, built
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.progress import Progress, silent

TRIPLES = {
    "x86_64": "x86_64-linux-musl",
    "aarch64": "aarch64-linux-musl",
    "armv7": "arm-linux-musleabihf",
    "riscv64": "riscv64-linux-musl",
}
# What `uname -m` says, in our words. A 64-bit kernel may run 32-bit programs only: then the address says the triple.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}


def triple_of(machine: str, where: str) -> str:
    """The triple for what ``uname -m`` says.

    Raises:
        DeviceError: there is no agent for that processor.
    """
    name = _MACHINES.get(machine, machine)
    if name not in TRIPLES:
        raise DeviceError(
            "there is no agent for the device's processor", where=where, found=f"uname -m says {machine!r}",
            expected=f"one of {', '.join(TRIPLES)}", fix="Name a triple that it runs in devices.toml (docs/devices.md)",
        )  # fmt: skip
    return TRIPLES[name]


def agent_for(triple: str, progress: Progress = silent) -> Path:
    """The static program for a triple; the first time it is built, which takes a minute or two.

    A folder of ready ones, ``TRIPLE/edgewise-bench``, can be named in ``EDGEWISE_AGENTS``.

    Raises:
        DeviceError: an unknown triple, or the build fails.
        MissingExtraError: no Zig, CMake or Ninja.
    """
    if triple not in TRIPLES.values():
        raise DeviceError(
            "there is no agent for the triple", where="devices.toml", found=repr(triple),
            expected=f"one of {', '.join(TRIPLES.values())}", fix="Correct it, or leave it out",
        )  # fmt: skip
    if ready := os.environ.get("EDGEWISE_AGENTS"):
        return _ready(Path(ready), triple)
    return built(triple, progress) / AGENT


def _ready(folder: Path, triple: str) -> Path:
    file = folder / triple / AGENT
    if not file.is_file():
        raise DeviceError(
            "there is no agent for the device", where="EDGEWISE_AGENTS", found=f"no {file}", expected="the program built for it",
            fix="Put it there, or unset EDGEWISE_AGENTS to have it built",
        )  # fmt: skip
    return file
