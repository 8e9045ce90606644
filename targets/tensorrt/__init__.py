"""Engines for NVIDIA GPUs: built ahead of time with TensorRT for RTX, or on the device with its own TensorRT."""

from __future__ import annotations

from edgewise.targets.tensorrt.target import TensorRTTarget

TARGET = TensorRTTarget()
