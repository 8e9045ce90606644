"""What a layer takes at a density, from a table that was measured on the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.matrices import weight_value


class LatencyTable:
    """Milliseconds (or millijoules: any one unit) by the shape of a layer's weights and its density.

    A JSON file::

        {"schema_version": 1, "unit": "ms",
         "layers": [{"op": "Conv", "weight": [64, 64, 3, 3], "costs": [[0.25, 0.021], [0.5, 0.034], [1.0, 0.055]]}, …]}

    An entry may name one layer (``"name"``), which then goes before others of the same shape. Between two densities a
    straight line is taken, beyond the ends the nearest value.

    Raises:
        QuantizeError: no such file, or not such a table.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._named: dict[str, Points] = {}
        self._shaped: dict[tuple[str, tuple[int, ...]], Points] = {}
        for entry in self._read():
            self._take(entry)

    def cost(self, layer: Layer, density: float) -> float:
        """What the layer takes at that density.

        Raises:
            QuantizeError: the table has no such layer.
        """
        shape = np.asarray(constant_of(weight_value(layer))).shape
        points = self._named.get(str(layer.node.name)) or self._shaped.get((layer.node.op_type, shape))
        if points is None:
            raise self._broken(f"no entry for {layer.node.op_type} with weights {list(shape)} ({layer.node.name})")
        return float(np.interp(density, *points))

    def _read(self) -> list[dict[str, Any]]:
        try:
            table = json.loads(Path(self._path).read_text(encoding="utf-8"))
        except OSError as error:
            raise self._broken(error.strerror or "a file that cannot be read") from error
        except ValueError as error:
            raise self._broken(f"no JSON ({error})") from error
        layers = table.get("layers") if isinstance(table, dict) else None
        if not isinstance(layers, list) or table.get("schema_version") != 1:
            raise self._broken("no 'layers' of schema_version 1")
        return layers

    def _take(self, entry: dict[str, Any]) -> None:
        try:
            pairs = np.array(sorted(entry["costs"]), np.float64)
            key = (str(entry["op"]), tuple(int(dim) for dim in entry["weight"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken(f"an entry that is none: {entry!r}") from error
        if pairs.ndim != 2 or pairs.shape[1:] != (2,) or not np.all(np.isfinite(pairs)) or np.any(pairs < 0):
            raise self._broken(f"costs that are no pairs of density and cost: {entry['costs']!r}")
        points = (pairs[:, 0], pairs[:, 1])
        if "name" in entry:
            self._named[str(entry["name"])] = points
        else:
            self._shaped[key] = points

    def _broken(self, found: str) -> QuantizeError:
        return QuantizeError(
            "cannot use the table of costs",
            where=self._path,
            found=found,
            expected='{"schema_version": 1, "layers": [{"op", "weight": [dims], "costs": [[density, cost], …]}]}',
            fix="Measure every layer that is pruned, at two densities or more",
        )


Points = tuple[NDArray[np.float64], NDArray[np.float64]]
