"""Sparse training in PyTorch: masks with edgewise's patterns, and a schedule that closes them slowly.

::

    masks = torch_masks(model, pattern="block:4x1", sparsity=0.5)
    for step, batch in enumerate(batches):
        masks.refresh(cubic_sparsity(step, start=0, end=1000, final=0.5))
        loss(model(batch)).backward()
        optimizer.step()
        masks.apply()          # an optimizer with momentum moves zeros too

Export the model as usual: the zeros stay exactly zero, and ``edgewise inspect`` shows the pattern.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.quantize.errors import QuantizeError
from edgewise.runtime.extras import needs

if TYPE_CHECKING:
    import torch

    from edgewise.quantize.layers import Layer
    from edgewise.quantize.pruning.criteria import Outcome
    from edgewise.quantize.pruning.patterns import Pattern

__all__ = ["TorchMasks", "cubic_sparsity", "torch_masks"]


def cubic_sparsity(step: int, *, start: int, end: int, final: float, initial: float = 0.0) -> float:
    """The sparsity at a step of gradual pruning (Zhu and Gupta 2017): fast first, when there is much to remove, then slow.

    ::

        final + (initial − final) · (1 − (step − start) / (end − start))³     between start and end

    >>> [round(cubic_sparsity(step, start=0, end=4, final=0.8), 3) for step in range(6)]
    [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]

    Raises:
        QuantizeError: ``end`` is not behind ``start``, or a sparsity is no fraction from 0 to below 1.
    """
    if end <= start or not (0 <= initial < 1 and 0 <= final < 1):
        raise QuantizeError(
            "cannot make a schedule",
            where="cubic_sparsity",
            found=f"start {start}, end {end}, initial {initial:g}, final {final:g}",
            expected="a start before the end, fractions from 0 to below 1",
            fix="Correct the numbers",
        )
    left = 1 - min(max((step - start) / (end - start), 0.0), 1.0)
    return final + (initial - final) * left**3


def torch_masks(
    module: torch.nn.Module,
    *,
    pattern: str,
    sparsity: float,
    skip: Sequence[str] = (),
    batches: Iterable[Any] | None = None,
) -> TorchMasks:
    """Prune the Conv and Linear layers of a module in place, and keep what was removed as masks.

    Args:
        module: float32. Layers are pruned by magnitude; with ``batches`` by a second-order solve that also updates what
            stays (see docs/prune.md), which is by far the better start for fine-tuning.
        pattern: ``unstructured``, ``block:RxC`` or ``N:M``, as in ``edgewise.prune``.
        sparsity: the share to remove from each layer.
        skip: names of submodules to leave alone, such as the first layer.
        batches: a re-iterable of inputs (a tensor, or a tuple of arguments); labels are not needed.

    Returns:
        The masks; ``refused`` tells which layers were left alone and why.

    Raises:
        QuantizeError: an unknown pattern or name, a sparsity that the pattern does not have, or nothing to prune.
        MissingExtraError: PyTorch is not installed.
    """
    with needs("export"):
        import torch
    from edgewise.quantize.pruning.patterns import parse_pattern

    _check_names(module, skip)
    masks = TorchMasks(module, parse_pattern(pattern, sparsity), pattern, skip)
    if not masks.names:
        raise _nothing(pattern, masks.refused)
    with torch.no_grad():
        if batches is None:
            masks.refresh(sparsity)
        else:
            dense = copy.deepcopy(module)
            for name in masks.names:
                masks.solve(name, sparsity, batches, dense)
    return masks


class TorchMasks:
    """Which weights of a module stay. Made by :func:`torch_masks`.

    Attributes:
        masks: bool tensors by the name of the submodule, in the shape of its weight.
        refused: submodules left alone, and why.
    """

    def __init__(self, module: torch.nn.Module, pattern: Pattern, text: str, skip: Sequence[str]) -> None:
        self._module, self._pattern, self._text = module, pattern, text
        self.masks: dict[str, torch.Tensor] = {}
        self.refused: dict[str, str] = {}
        self.names: list[str] = []
        seen: set[int] = set()
        children: list[tuple[str, Any]] = list(module.named_modules())
        for name, child in children:
            if not hasattr(child, "weight") or not _prunable(child):
                continue
            reason = "asked for" if name in skip else _refusal(child, pattern)
            if id(child.weight) in seen:
                reason = reason or "its weight is shared with another layer"
            seen.add(id(child.weight))
            if reason:
                self.refused[name] = reason
            else:
                self.names.append(name)

    @property
    def sparsity(self) -> float:
        """The share of the masked layers' weights that is removed."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / max(total, 1)

    def apply(self) -> None:
        """Set what is removed to zero again: call it after every step of the optimizer."""
        import torch

        with torch.no_grad():
            for name, mask in self.masks.items():
                # Not a product: that would make -0.0 of negative weights, and NaN of infinite ones.
                self._child(name).weight.masked_fill_(~mask, 0.0)

    def refresh(self, sparsity: float) -> None:
        """Choose anew, by magnitude, what to remove: weights at zero have the smallest, so masks of a schedule only close.

        Raises:
            QuantizeError: a sparsity that the pattern does not have (N:M has one).
        """
        from edgewise.quantize.pruning.patterns import parse_pattern

        pattern = parse_pattern(self._text, sparsity)
        for name in self.names:
            weight = self._child(name).weight
            self._keep(name, pattern.keep(np.square(_matrices(weight), dtype=np.float64), sparsity))
        self.apply()

    def solve(self, name: str, sparsity: float, batches: Iterable[Any], dense: torch.nn.Module) -> None:
        """Prune one layer by what it reads now, and update what stays towards the dense module's outputs of this layer."""
        import torch

        child = self._child(name)
        outcome = _solve((self._module, dense), name, self._pattern, sparsity, batches)
        with torch.no_grad():
            made = _from_matrices(outcome.weights, child.weight)
            child.weight.copy_(torch.from_numpy(made))
            if child.bias is not None and outcome.bias_shift is not None:
                child.bias.add_(torch.from_numpy(outcome.bias_shift.astype(np.float32)).to(child.bias.device))
        self._keep(name, outcome.weights != 0)

    def _child(self, name: str) -> Any:
        return self._module.get_submodule(name)

    def _keep(self, name: str, kept: np.ndarray) -> None:
        import torch

        weight = self._child(name).weight
        self.masks[name] = torch.from_numpy(_from_matrices(kept, weight).copy()).to(weight.device)


def _prunable(child: torch.nn.Module) -> bool:
    import torch

    return isinstance(child, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.Linear)


def _refusal(child: Any, pattern: Pattern) -> str:
    import torch

    if child.weight.dtype != torch.float32:
        return "its weight is not float32"
    if not torch.isfinite(child.weight).all():
        return "its weight holds NaN or infinity"
    if not child.weight.any():
        return "its weight is all zero"
    groups = getattr(child, "groups", 1)
    if groups > 1 and child.weight.shape[1] == 1:
        return "it is a depthwise convolution: few weights, each of them needed"
    made, positions, read = _matrices(child.weight).shape
    return pattern.refusal((made // groups, positions, read))


def _matrices(weight: torch.Tensor) -> np.ndarray:
    """[outputs, kernel positions, inputs]."""
    flat = weight.detach().cpu().numpy().reshape(*weight.shape[:2], -1)
    return flat.transpose(0, 2, 1)


def _from_matrices(matrices: np.ndarray, weight: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(matrices.transpose(0, 2, 1).reshape(tuple(weight.shape)))


def _solve(
    modules: tuple[torch.nn.Module, torch.nn.Module],
    name: str,
    pattern: Pattern,
    sparsity: float,
    batches: Iterable[Any],
) -> Outcome:
    import torch

    from edgewise.quantize.pruning.criteria import Task, second_order
    from edgewise.quantize.pruning.moments import Moments

    child: Any = modules[0].get_submodule(name)
    moments = Moments(_layer(child))
    for batch in batches:
        with torch.no_grad():
            now, dense = (_read_by(module, name, batch) for module in modules)
        for own, before in zip(now, dense, strict=True):
            moments.update(own, before)
    if moments.rows == 0 or (reason := moments.refusal()):
        raise QuantizeError(
            "cannot solve for a layer",
            where=f"torch_masks, {name}",
            found="a layer that no batch reached" if moments.rows == 0 else reason,
            expected="batches that it computes something from",
            fix="Pass more batches, or name the layer in skip",
        )
    return second_order(Task(_matrices(child.weight), pattern, sparsity, moments, child.bias is not None))


def _read_by(module: torch.nn.Module, name: str, batch: Any) -> list[np.ndarray]:
    """What a layer reads for a batch, in evaluation mode, one sample at a time."""
    found: list[np.ndarray] = []

    def look(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].detach().cpu().numpy()
        found.extend(np.split(values, len(values)) if values.ndim > 2 else [values])

    handle = module.get_submodule(name).register_forward_pre_hook(look)
    training = module.training
    module.eval()
    try:
        module(*batch) if isinstance(batch, tuple | list) else module(batch)
    finally:
        handle.remove()
        module.train(training)
    return found


def _layer(child: Any) -> Layer:
    """The ONNX layer that computes the same as a module."""
    import onnx_ir as ir

    from edgewise.quantize.layers import describe

    array = child.weight.detach().cpu().numpy()
    weight = ir.Value(name="w", const_value=ir.tensor(array, name="w"), shape=ir.Shape(array.shape))
    x = ir.Value(name="x")
    if array.ndim == 2:
        node = ir.node("Gemm", [x, weight], {"transB": 1})
    else:
        if child.padding_mode != "zeros" or isinstance(child.padding, str):
            raise QuantizeError(
                "cannot solve for a layer",
                where=f"torch_masks, {child}",
                found=f"padding {child.padding!r} of mode {child.padding_mode}",
                expected="a number of zeros",
                fix="Name the layer in skip",
            )
        names = {"strides": child.stride, "dilations": child.dilation, "pads": child.padding * 2}
        node = ir.node("Conv", [x, weight], {"group": child.groups, **{k: list(v) for k, v in names.items()}})
    ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], name="layer")
    return describe(node)


def _check_names(module: torch.nn.Module, skip: Sequence[str]) -> None:
    known = {name for name, _ in module.named_modules()}
    for name in skip:
        if name not in known:
            raise QuantizeError(
                "cannot leave a layer alone",
                where=f"skip {name!r}",
                found="no submodule of that name",
                expected="a name that named_modules() gives",
                fix="Correct the name",
            )


def _nothing(pattern: str, refused: dict[str, str]) -> QuantizeError:
    first = next(iter(refused.items()), None)
    return QuantizeError(
        "nothing to prune",
        where=f"pattern {pattern}",
        found=f"{first[0]}: {first[1]}" if first else "no Conv or Linear layer",
        expected="at least one layer that can have the pattern",
        fix="Choose another pattern",
    )
