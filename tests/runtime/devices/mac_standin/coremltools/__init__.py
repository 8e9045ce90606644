"""What edgewise calls of coremltools on a Mac, with a network that doubles its input. A stand-in: no Core ML is here."""

import enum

__version__ = "9.0 (a stand-in)"
ComputeUnit = enum.Enum("ComputeUnit", ["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"])

from coremltools import models as models  # noqa: E402  it reads ComputeUnit
