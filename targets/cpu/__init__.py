"""Networks for processors. One folder per engine: ``ort`` for ONNX Runtime, ``native`` for libedgewise."""

from __future__ import annotations

from edgewise.targets.cpu.target import CpuTarget

TARGET = CpuTarget()
