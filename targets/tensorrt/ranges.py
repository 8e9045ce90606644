"""How large tensors become on calibration data: what float16 cannot hold stays in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.streaming import Watcher, watch
from edgewise.runtime.data import open_data
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.progress import silent
from edgewise.targets.nodes import tensor_spec

_SAMPLES = 16


def largest_values(model: ir.Model, source: str, preprocess: dict[str, Any] | None) -> dict[str, float]:
    """The largest magnitude of each float32 tensor of the main graph, by name, over the first samples of DATA.

    Raises:
        RunError: the data cannot be read, or ONNX Runtime refuses the network.
        QuantizeError: NaN or infinity in the data or in a tensor computed from it.
    """
    image = None if preprocess is None else Preprocess.from_json(preprocess)
    data = open_data(source, [tensor_spec(value) for value in model.graph.inputs], image, limit=_SAMPLES)
    found: dict[str, float] = {}

    def watcher(name: str) -> Watcher:
        def see(array: np.ndarray) -> None:
            found[name] = max(found.get(name, 0.0), float(np.abs(array).max(initial=0.0)))

        return see

    made = [value for node in model.graph for value in node.outputs]
    watchers = {value: watcher(str(value.name)) for value in made if value.name and value.dtype == ir.DataType.FLOAT}
    watch(model, watchers, data, task="find ranges", progress=silent)
    return found
