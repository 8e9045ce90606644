"""One file per family: an ONNX operator becomes operators of libedgewise. ``table.py`` lists them all."""
