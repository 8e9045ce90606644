"""GELUs turned to ReLUs, with the layers around them trained to make up for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.mlps import Site, site_before
from edgewise.quantize.observers import find_observer
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.widen_layers import WidenLayers
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.walking import Arrays, Walk, kept_samples
from edgewise.runtime.extras import needs
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.quantize.relu_mlp import Mlp
    from edgewise.quantize.spec import QuantSpec
    from edgewise.runtime.data import Dataset

_SAMPLES = 256
_HELD_OUT = 8  # every eighth sample judges and is not trained on
_ROWS = 16384  # of all samples together
_SEED = 0

Matrix = NDArray[np.float32]


class ReluMlps(ir.passes.InPlacePass):
    """Let an MLP compute with a ReLU in place of its GELU, where few bits are then better spent.

    Before::

        x ─► MatMul(w) ─► Add(b) ─► Gelu ─► MatMul(v) ─► Add(c) ─► y

    After::

        x ─► MatMul(w′) ─► Add(b′) ─► Relu ─► MatMul(v′) ─► Add(c′) ─► about y

    GELU gives many small negative numbers and a few large positive ones, which a grid of 16 steps serves badly; a ReLU gives
    exact zeros in place of the first. The two layers are trained on calibration rows towards what the float MLP gives, weighted by
    the network's Hessian (MLP reconstruction of Z. Wu et al., "APHQ-ViT", CVPR 2025), in the order of the graph, each on what the ones before
    it give now. It is kept only where, on samples that were not trained on, the MLP with weights and hidden activations rounded as the
    scheme says comes nearer to the float one than the old MLP rounded the same way. GELU is known by what it computes, however it is written.
    A processor that has no instruction for erf computes a ReLU faster as well.

    Args:
        spec: the scheme; one that rounds activations.
        data: calibration samples, labels are not looked at.
        method: how the ranges of activations are found.
        keep_float: names of layers that stay in float; their MLPs are left alone.
        wide: names of layers that get 8 bits.
    """

    def __init__(
        self,
        spec: QuantSpec,
        data: Dataset,
        *,
        method: str = "mse",
        keep_float: Sequence[str] = (),
        wide: Sequence[str] = (),
        progress: Progress = silent,
    ) -> None:
        self._spec, self._data, self._progress = spec, data, progress
        self._plan, self._keep_float, self._wide = Plan(spec), keep_float, wide
        self._observer = find_observer(method)
        self.replaced: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace what gains; ``replaced`` tells where and how much, ``notes`` what was left and why."""
        with needs("export"):
            import edgewise.quantize.relu_mlp  # noqa: F401 - told before the work begins
        sites = list(self._sites(model))
        if self._spec.weights_only:
            self.notes.append("no GELU became a ReLU: activations stay in float, so nothing would be gained")
        samples = kept_samples(model, self._data, most=_SAMPLES) if sites and not self._spec.weights_only else []
        if sites and samples and len(samples) < _HELD_OUT:
            self.notes.append(f"no GELU became a ReLU: there are too few samples: {len(samples)}")
        if len(samples) >= _HELD_OUT:
            self._replace(model, sites, samples)
        return ir.passes.PassResult(model, modified=bool(self.replaced))

    def _sites(self, model: ir.Model) -> Iterator[Site]:
        plan = self._plan
        for decide in (SelectLayers(plan, self._keep_float), WidenLayers(plan, self._wide)):
            decide(model)
        for layer in plan.layers.values():
            site = site_before(model, layer)
            if site is None:
                continue
            if site.first.node not in plan.layers:
                self.notes.append(f"the GELU before {layer.node.name!r} stays: {site.first.node.name!r} stays in float")
            elif reason := site.refusal():
                self.notes.append(f"the GELU before {layer.node.name!r} stays: {reason}")
            else:
                yield site

    def _replace(self, model: ir.Model, sites: list[Site], samples: Sequence[Arrays]) -> None:
        weights = self._importance(model, sites, samples)
        dense, now = Walk(model, samples), Walk(model, samples)
        made: list[tuple[Site, Mlp]] = []
        for number, site in enumerate(sites, start=1):
            read = now.values([site.x])[0]
            wanted = dense.values([site.output])[0]
            old = site.mlp()
            found, row = self._tried(site, old, _Rows(read, wanted, weights.get(site.output)))
            if row["gain_db"] > 0:
                made.append((site, found))
                self.replaced.append(row)
                now.values([site.output])
                now.replace(site.output, (_given(found, np.asarray(x, np.float32)) for x in read))
            else:
                name = site.second.node.name
                self.notes.append(f"the GELU before {name!r} stays: rounded, a ReLU is {-row['gain_db']:.1f} dB worse")
            self._progress("relu mlps", number, len(sites))
        writer = Writer(model.graph)
        for site, mlp in made:
            site.write(writer, mlp)

    def _importance(self, model: ir.Model, sites: list[Site], samples: Sequence[Arrays]) -> dict[ir.Value, Matrix]:
        from edgewise.quantize.block_training import importance

        try:
            found = importance(model, [site.output for site in sites], samples)
        except NotImplementedError as error:
            self.notes.append(f"all errors of MLPs count alike: {error}")
            return {}
        return {value: tensor.numpy() for value, tensor in found.items()}

    def _tried(self, site: Site, old: Mlp, rows: _Rows) -> tuple[Mlp, dict[str, Any]]:
        from edgewise.quantize.relu_mlp import gelu, with_relu

        seen, held = rows.part(held=False), rows.part(held=True)
        biased = (site.biases[0] is not None, site.biases[1] is not None)
        found = with_relu(old, seen.rows, seen.wanted, seen.weight, biased)
        errors = {}
        for name, mlp, act in (("gelu", old, gelu), ("relu", found, _relu)):
            grid = self._grid(site, act(mlp.hidden(seen.rows)))
            rounded = site.rounded(mlp, self._plan)
            errors[name] = held.error(rounded.outputs(grid(act(rounded.hidden(held.rows)))))
        row = {
            "layer": str(site.second.node.name),
            "float_error": round(held.error(found.outputs(_relu(found.hidden(held.rows)))), 6),
            "gain_db": round(float(10 * np.log10(max(errors["gelu"], 1e-30) / max(errors["relu"], 1e-30))), 2),
        }
        return found, row

    def _grid(self, site: Site, values: Matrix) -> Any:
        """Rounding with the range that calibration would find for these values."""
        observer = self._observer()
        observer.update(values)
        grid = self._plan.grid(site.activation[1])
        scale = grid.fit(*observer.range(grid))
        return lambda each: grid.round_trip(each.astype(np.float64), scale).astype(np.float32)


@dataclass(frozen=True)
class _Part:
    """Rows: what the MLP reads, what it should give, and how much the square of an error counts."""

    rows: Matrix
    wanted: Matrix
    weight: Matrix

    def error(self, made: Matrix) -> float:
        """Weighted, of what is wanted."""
        size = float((np.square(self.wanted, dtype=np.float64) * self.weight).sum())
        return float((np.square(made - self.wanted, dtype=np.float64) * self.weight).sum()) / max(size, 1e-30)


class _Rows:
    """Rows of all samples, drawn where there are many."""

    def __init__(self, read: Sequence[np.ndarray], wanted: Sequence[np.ndarray], weight: Matrix | None) -> None:
        self._read, self._wanted, self._weight = read, wanted, weight

    def part(self, *, held: bool) -> _Part:
        """Every eighth sample, or all others."""
        chosen = [index for index in range(len(self._read)) if (index % _HELD_OUT == 0) == held]
        most = max(1, _ROWS // len(self._read))
        drawn = np.random.default_rng(_SEED)
        found: list[tuple[Matrix, ...]] = []
        for index in chosen:
            wanted = np.asarray(self._wanted[index], dtype=np.float32)
            weight = np.ones_like(wanted) if self._weight is None else np.broadcast_to(self._weight, wanted.shape)
            flat = [each.reshape(-1, each.shape[-1]) for each in (self._read[index], wanted, weight)]
            at = drawn.permutation(len(flat[0]))[:most]
            found.append(tuple(np.asarray(each[at], dtype=np.float32) for each in flat))
        return _Part(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _given(mlp: Mlp, x: Matrix) -> Matrix:
    return mlp.outputs(_relu(mlp.hidden(x)))


def _relu(x: Matrix) -> Matrix:
    return np.maximum(x, 0)
