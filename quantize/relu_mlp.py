"""Two linear layers with a ReLU between them, trained to give what they gave with a GELU. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Tensor = torch.Tensor
Matrix = NDArray[np.float32]

_SEED = 0
_EPOCHS, _BATCH = 16, 256
_RATE = 0.02  # of a tensor's mean size
_DAMPING = 0.001  # of the mean diagonal, where the second layer is solved for


@dataclass(frozen=True)
class Mlp:
    """Weights as they multiply rows from the right.

    Attributes:
        first: float32 [inputs, width].
        first_bias: float32 [width].
        second: float32 [width, outputs].
        second_bias: float32 [outputs].
    """

    first: Matrix
    first_bias: Matrix
    second: Matrix
    second_bias: Matrix

    def hidden(self, rows: Matrix) -> Matrix:
        """What the activation reads, float32 [rows, width]."""
        return np.asarray(rows @ self.first + self.first_bias, dtype=np.float32)

    def outputs(self, hidden: Matrix) -> Matrix:
        """What the second layer gives for what the activation gave, float32 [rows, outputs]."""
        return np.asarray(hidden @ self.second + self.second_bias, dtype=np.float32)


def gelu(x: Matrix) -> Matrix:
    """x·Φ(x), float32 in the shape of x."""
    return np.asarray(torch.nn.functional.gelu(torch.from_numpy(np.ascontiguousarray(x))).numpy())


def with_relu(mlp: Mlp, rows: Matrix, wanted: Matrix, weight: Matrix, biased: tuple[bool, bool]) -> Mlp:
    """The weights with which ``relu`` between the layers comes nearest to ``wanted``.

    The second layer is solved for first, by least squares on what the ReLU gives; then both are trained (Adam). Weights
    that are zero stay zero: with any among them nothing is solved for, only trained.

    Args:
        mlp: of the network with GELU; where it starts.
        rows: what the first layer reads, float32 [rows, inputs].
        wanted: what the second should give, float32 [rows, outputs].
        weight: how much the square of each error counts, broadcast to ``wanted``.
        biased: whether the two layers have biases to train.
    """
    sparse = bool((mlp.second == 0).any())
    start = mlp if sparse else _solved(mlp, rows, wanted, biased[1])
    arrays = (start.first, start.first_bias, start.second, start.second_bias)
    tensors = [torch.from_numpy(np.array(array, dtype=np.float32)) for array in arrays]
    masks = [tensor != 0 for tensor in tensors]
    trained = [0, 2, *([1] if biased[0] else []), *([3] if biased[1] else [])]
    _train(tensors, trained, masks, [torch.from_numpy(np.array(each)) for each in (rows, wanted, weight)])
    return Mlp(*(tensor.detach().numpy().copy() for tensor in tensors))


def _solved(mlp: Mlp, rows: Matrix, wanted: Matrix, biased: bool) -> Mlp:
    hidden = np.maximum(mlp.hidden(rows), 0).astype(np.float64)
    target = wanted.astype(np.float64)
    means = (hidden.mean(0), target.mean(0)) if biased else (np.zeros(hidden.shape[1]), mlp.second_bias)
    hidden, target = hidden - means[0], target - means[1]
    moments = hidden.T @ hidden
    damped = moments + np.eye(len(moments)) * max(_DAMPING * float(np.mean(np.diag(moments))), 1e-12)
    # Towards the weights that were there, where the samples do not tell.
    second = mlp.second + np.linalg.solve(damped, hidden.T @ (target - hidden @ mlp.second))
    bias = means[1] - means[0] @ second if biased else mlp.second_bias
    return Mlp(mlp.first, mlp.first_bias, second.astype(np.float32), np.asarray(bias, dtype=np.float32))


def _train(tensors: list[Tensor], trained: list[int], masks: list[Tensor], data: list[Tensor]) -> None:
    rows, wanted, weight = data
    torch.manual_seed(_SEED)
    groups = [
        {"params": [tensors[index].requires_grad_()], "lr": _RATE * float(tensors[index].detach().abs().mean() + 1e-8)}
        for index in trained
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    count = -(-len(rows) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS * count)
    scale = float((wanted.square() * weight).mean().clamp(min=1e-30))
    for _ in range(_EPOCHS):
        for chosen in torch.split(torch.randperm(len(rows)), _BATCH):
            optimizer.zero_grad()
            first, first_bias, second, second_bias = tensors
            made = torch.relu(rows[chosen] @ first + first_bias) @ second + second_bias
            counted = weight[chosen] if len(weight) > 1 else weight
            torch.autograd.backward(((made - wanted[chosen]).square() * counted).mean() / scale)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for index in (0, 2):
                    tensors[index].masked_fill_(~masks[index], 0.0)
