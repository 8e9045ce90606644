"""Small recurrent networks in plain PyTorch, as people write them: selective scan, WKV of RWKV 4 and 5, retention; and the scan as an operator.

Inputs and outputs are float32 [1, steps, width].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional


class SelectiveScan(nn.Module):
    """A block of Mamba (Gu and Dao 2023, arXiv:2312.00752), its scan a loop over the steps."""

    def __init__(self, width: int = 16, states: int = 4) -> None:
        super().__init__()
        self.width, self.states, self.rank = width, states, max(width // 16, 1)
        self.into = nn.Linear(width, 2 * width, bias=False)
        self.conv = nn.Conv1d(width, width, 4, groups=width, padding=3)
        self.parts = nn.Linear(width, self.rank + 2 * states, bias=False)
        self.delta = nn.Linear(self.rank, width)
        self.log_a = nn.Parameter(torch.log(torch.arange(1, states + 1).float().repeat(width, 1)))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        x, gate = self.into(x).split([self.width, self.width], dim=-1)
        x = functional.silu(self.conv(x.transpose(1, 2))[:, :, :steps].transpose(1, 2))
        delta, b, c = self.parts(x).split([self.rank, self.states, self.states], dim=-1)
        delta = functional.softplus(self.delta(delta))
        decay = torch.exp(torch.einsum("bld,dn->bldn", delta, -torch.exp(self.log_a)))
        term = torch.einsum("bld,bln,bld->bldn", delta, b, x)
        return self.out((self.scan(decay, term, c) + x * self.skip) * functional.silu(gate))

    def scan(self, decay: Tensor, term: Tensor, c: Tensor) -> Tensor:
        h = torch.zeros(decay.shape[0], self.width, self.states)
        read = []
        for t in range(decay.shape[1]):
            h = decay[:, t] * h + term[:, t]
            read.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
        return torch.stack(read, dim=1)


class ScanOperator(SelectiveScan):
    """The same, its scan PyTorch's higher-order operator: ONNX's Scan."""

    def scan(self, decay: Tensor, term: Tensor, c: Tensor) -> Tensor:
        def step(h: Tensor, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            h = parts[0] * h + parts[1]
            return h, torch.einsum("bdn,bn->bd", h, parts[2])

        h = torch.zeros(decay.shape[0], self.width, self.states)
        _, read = scan(step, h, (decay.transpose(0, 1), term.transpose(0, 1), c.transpose(0, 1)), dim=0)
        return read.transpose(0, 1)


class Rwkv4(nn.Module):
    """WKV with its running maximum (Peng et al. 2023, arXiv:2305.13048)."""

    def __init__(self, width: int = 16, states: int = 0) -> None:
        super().__init__()
        self.decay, self.first = nn.Parameter(-torch.rand(width) - 0.1), nn.Parameter(torch.rand(width))
        self.k, self.v, self.r, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        k, v, r = self.k(x), self.v(x), torch.sigmoid(self.r(x))
        top, bottom = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
        most = torch.full((x.shape[0], x.shape[2]), -1e38)
        read = []
        for t in range(x.shape[1]):
            now = self.first + k[:, t]
            p = torch.maximum(most, now)
            before, this = torch.exp(most - p), torch.exp(now - p)
            read.append((before * top + this * v[:, t]) / (before * bottom + this))
            p = torch.maximum(most + self.decay, k[:, t])
            before, this = torch.exp(most + self.decay - p), torch.exp(k[:, t] - p)
            top, bottom, most = before * top + this * v[:, t], before * bottom + this, p
        return self.out(r * torch.stack(read, 1))


class _Heads(nn.Module):
    def __init__(self, width: int = 16, states: int = 8) -> None:
        super().__init__()
        self.heads, self.size = width // states, states
        self.r, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.size).transpose(1, 2)

    def joined(self, read: list[Tensor]) -> Tensor:
        return self.out(torch.stack(read, 2).transpose(1, 2).reshape(read[0].shape[0], len(read), -1))


class Rwkv5(_Heads):
    """A matrix for each head, and a bonus for the present step (Peng et al. 2024, arXiv:2404.05892)."""

    def __init__(self, width: int = 16, states: int = 8) -> None:
        super().__init__(width, states)
        self.decay, self.bonus = (nn.Parameter(torch.rand(self.heads, self.size)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        r, k, v = self.split(self.r(x)), self.split(self.k(x)), self.split(self.v(x))
        decay, bonus = torch.exp(-torch.exp(self.decay)).unsqueeze(-1), self.bonus.unsqueeze(-1)
        h = torch.zeros(x.shape[0], self.heads, self.size, self.size)
        read = []
        for t in range(x.shape[1]):
            term = k[:, :, t].unsqueeze(-1) @ v[:, :, t].unsqueeze(-2)
            read.append((r[:, :, t].unsqueeze(-2) @ (bonus * term + h)).squeeze(-2))
            h = term + decay * h
        return self.joined(read)


class Retention(_Heads):
    """RetNet's recurrent form (Sun et al. 2023, arXiv:2307.08621)."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.r(x)), self.split(self.k(x)) * self.size**-0.5, self.split(self.v(x))
        decay = (1 - 2.0 ** (-5 - torch.arange(self.heads).float())).view(1, -1, 1, 1)
        h = torch.zeros(x.shape[0], self.heads, self.size, self.size)
        read = []
        for t in range(x.shape[1]):
            h = decay * h + k[:, :, t].unsqueeze(-1) * v[:, :, t].unsqueeze(-2)
            read.append((q[:, :, t].unsqueeze(-1) * h).sum(-2))
        return self.joined(read)


NETWORKS: dict[str, type[nn.Module]] = {
    "selective scan": SelectiveScan,
    "scan operator": ScanOperator,
    "rwkv 4": Rwkv4,
    "rwkv 5": Rwkv5,
    "retention": Retention,
}
