"""Removing weights: patterns, the layers that have them, and what an ONNX graph holds of them."""
