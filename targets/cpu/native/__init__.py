"""ONNX to a plan for libedgewise: operators, layouts, packed weights, one engine file."""
