"""Groups of ONNX nodes that are one operation in Core ML. GELU, SiLU and the like are found by coremltools' own passes."""
