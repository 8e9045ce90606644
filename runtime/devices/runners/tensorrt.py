"""TensorRT engines on the machine that they were built for: through its Python where that has TensorRT, else through ``trtexec``."""

from __future__ import annotations

from typing import Any

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.devices.python import lacks, python_of, run_there
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.devices.trtexec import find_trtexec, run_trtexec
from edgewise.runtime.engines import model_file
from edgewise.runtime.engines.tensorrt import TRUST, host_code_allowed
from edgewise.runtime.progress import Progress

not_over_adb = "TensorRT runs in a Python or in trtexec there, and NVIDIA makes neither for Android"


def measure(device: Shell, address: Address, bundle: Bundle, order: Order, progress: Progress) -> dict[str, Any]:
    """See :class:`~edgewise.runtime.devices.runners.Runner`."""
    library = str(bundle.manifest["engine"].get("settings", {}).get("library"))
    model = model_file(bundle)
    if model.suffix == ".onnx":
        raise DeviceError(
            "there is no engine to run yet", where=str(model), found="the graph from which it is to be built", expected="a built engine",
            fix="Build with --option build_on=ssh://…, or run the bundle's build script on the device",
        )  # fmt: skip
    trusted = {TRUST: "1"} if host_code_allowed(bundle, str(model)) else {}
    missing = lacks(device, python_of(device), (library,))
    if not missing:
        return run_there(device, address, bundle, order, [], progress, environment=trusted) | {
            "triple": device.ask("uname -sm")
        }
    program = find_trtexec(device, library)
    if program is None:
        raise DeviceError(
            "the device has no TensorRT that can be reached", where=device.where, found=f"{missing}, and no trtexec",
            expected=f"a Python with numpy and {library}, or NVIDIA's trtexec",
            fix="Install NVIDIA's TensorRT there, put trtexec into the PATH, or name a Python as `runner` in devices.toml",
        )  # fmt: skip
    return run_trtexec(device, address, bundle, order, program, progress)
