"""NNCF's post-training quantization with its defaults, for benchmarks/accuracy.py; runs in a Python that has nncf and onnx.

    python nncf_defaults.py MODEL.onnx SAMPLES_FOLDER OUT.onnx

SAMPLES_FOLDER holds one ``.npz`` for each sample, arrays by input name. A network with attention and LayerNormalization is
told to be a transformer, as NNCF's documentation asks for.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx


def main(model: str, samples: str, output: str) -> None:
    graph = onnx.load(model)
    arrays = [dict(np.load(path)) for path in sorted(Path(samples).glob("*.npz"))]
    transformer = any(node.op_type == "LayerNormalization" for node in graph.graph.node)
    made = nncf.quantize(
        graph,
        nncf.Dataset(arrays),
        subset_size=len(arrays),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    onnx.save(made, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
