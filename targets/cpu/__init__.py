"""Networks for processors. One folder per engine; today ONNX Runtime's."""

from __future__ import annotations

from edgewise.targets.cpu.target import CpuTarget

TARGET = CpuTarget()
