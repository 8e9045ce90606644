"""ONNX to ONNX passes: quantize, prune, rewrite."""
