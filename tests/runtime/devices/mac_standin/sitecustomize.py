"""Makes a Python say that it runs on a Mac. A stand-in: nothing here is Apple's."""

import platform

platform.system = lambda: "Darwin"
platform.mac_ver = lambda: ("15.0 (a stand-in)", ("", "", ""), "arm64")
