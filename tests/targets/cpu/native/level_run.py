"""Run engine files in a process whose EDGEWISE_ISA is set: ``level_run.py FOLDER``; arrays in NAME.npz, answers in NAME.made.npz."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Every engine of the folder; prints the kernels that were chosen, by name, or what libedgewise said."""
    file = os.environ.get("EDGEWISE_NATIVE")
    if file:
        spec = importlib.util.spec_from_file_location("edgewise.runtime._native", file)
        assert spec and spec.loader
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
    else:
        native = importlib.import_module("edgewise.runtime._native")
    told = {}
    for path in sorted(Path(sys.argv[1]).glob("*.engine")):
        arrays = np.load(path.with_suffix(".npz"))
        try:
            context = native.Context(native.Engine(str(path)), threads=1)
        except native.NativeError as error:
            told[path.stem] = str(error.args[1])
            continue
        made = context.run([arrays[f"x{i}"] for i in range(len(arrays.files))])
        np.savez(path.with_suffix(".made.npz"), **{f"y{i}": array for i, array in enumerate(made)})
        told[path.stem] = " ".join(sorted({kernel for _, _, kernel, _, _ in context.profile()}))
    print(json.dumps({"isas": native.isas(), "kernels": told}))


if __name__ == "__main__":
    main()
