"""PyTorch to ONNX that is verified against PyTorch."""
