"""Loads any package that has a manifest, on every unit but the GPU."""

import os
import pathlib
import sys

import numpy as np

import coremltools


class MLModel:
    def __init__(self, package, compute_units):
        print("Core ML's libraries print what they like")
        if compute_units is coremltools.ComputeUnit.CPU_AND_GPU:
            raise RuntimeError("Error computing NN outputs: no GPU here")
        assert pathlib.Path(package, "Manifest.json").is_file()
        self.package = package

    def predict(self, given):
        if os.environ.get("STAND_IN_CRASHES"):
            sys.stderr.write("libBNNS: illegal instruction\n")
            sys.stderr.flush()
            os._exit(132)
        return {"y_out": given["x_in"] * np.float32(2)}

    def get_compiled_model_path(self):
        return f"{self.package}c"
