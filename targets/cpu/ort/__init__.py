"""The ONNX Runtime engine: support, build, read-back."""
