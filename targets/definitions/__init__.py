"""Operators by others: apart from the targets, which are looked for in every module beside this one, because onnx is imported late."""
