"""Networks that the exporter's tests export, each with one peculiarity."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Tiny(nn.Module):
    """Two convolutions, BatchNorm with statistics that matter, a classifier."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, num_classes)
        self.drop = nn.Dropout(0.5)
        self.bn1.running_mean.uniform_(-1, 1)
        self.bn1.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.conv2(x))
        return self.head(self.drop(x.mean((2, 3))))


class Attention(nn.Module):
    """A transformer block of one layer over [batch, length, 16]."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.proj = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.causal = causal

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Masked(nn.Module):
    """Attention with a boolean mask that is an input."""

    def forward(self, x, mask):
        return functional.scaled_dot_product_attention(x, x, x, attn_mask=mask[:, None, :])


class Grouped(nn.Module):
    """Grouped-query attention: 4 heads of queries on 2 of keys and values."""

    def forward(self, q, kv):
        return functional.scaled_dot_product_attention(q, kv, kv * 0.5, enable_gqa=True)


class Several(nn.Module):
    """Several outputs in a dictionary, an integer one and None among them; inputs with names."""

    def forward(self, image, weight):
        y = functional.relu(image) * weight
        return {"scores": y, "best": y.argmax(1), "nothing": None, "extra": [y + 1, y * 2]}


class Echo(nn.Module):
    """Returns a tensor twice, its input, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(3.0))

    def forward(self, x):
        y = x + 1
        return y, y, x, self.table


class Branching(nn.Module):
    """Control flow that depends on data."""

    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


class Merging(nn.Module):
    """Two branches that merge into one convolution; ``broken`` merges them wrongly."""

    class Block(nn.Module):
        def __init__(self, broken: bool) -> None:
            super().__init__()
            self.one, self.three = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
            self.merged: nn.Conv2d | None = None
            self.broken = broken

        def forward(self, x):
            return self.merged(x) if self.merged is not None else self.one(x) + self.three(x)

        def reparameterize(self) -> None:
            merged = nn.Conv2d(3, 3, 3, padding=1)
            merged.weight.data = self.three.weight + functional.pad(self.one.weight, (1, 1, 1, 1))
            merged.bias.data = self.three.bias + (0 if self.broken else self.one.bias)
            self.merged = merged

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(self.Block(broken), self.Block(broken))

    def forward(self, x):
        return self.blocks(x)


class Scaled(nn.Module):
    """A convolution with a scale, that merge into one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 3, 1), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.conv(x) * self.scale

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        merged = nn.Conv2d(3, 3, 1)
        merged.weight.copy_(self.conv.weight * self.scale)
        merged.bias.copy_(self.conv.bias * self.scale)
        return merged


class Nesting(nn.Module):
    """Merges its parts by itself, and can no longer do so once they are merged."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = Scaled(), Scaled()

        def forward(self, x):
            return self.left(x) + self.right(x)

        @torch.no_grad()
        def fuse(self) -> nn.Conv2d:
            left, right = self.left.fuse(), self.right.fuse()
            left.weight += right.weight
            left.bias += right.bias
            return left

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair = Scaled(), self.Pair()

    def forward(self, x):
        return self.pair(self.first(x))


class Deciding(nn.Module):
    """Does one thing for 9 columns and another for the rest."""

    def forward(self, x):
        return x * 2 if x.shape[1] == 9 else x * 3


class Eigen(nn.Module):
    """Uses an operator without an ONNX form."""

    def forward(self, x):
        return torch.linalg.eigvals(x).abs()


class Squarer(nn.Module):
    """Only works on 8 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(x)


def tiny(num_classes: int = 4) -> Tiny:
    return Tiny(num_classes)


def attention(causal: bool = False) -> Attention:
    return Attention(causal)


def merging(broken: bool = False) -> Merging:
    return Merging(broken)


def not_a_network() -> int:
    return 3


def fails() -> nn.Module:
    raise ValueError("the width must be even")


def masked() -> Masked:
    return Masked()


def grouped() -> Grouped:
    return Grouped()


def several() -> Several:
    return Several()


def branching() -> Branching:
    return Branching()


def squarer() -> Squarer:
    return Squarer()


def echo() -> Echo:
    return Echo()


def nesting() -> Nesting:
    return Nesting()


def scaled() -> Scaled:
    return Scaled()


def deciding() -> Deciding:
    return Deciding()


def eigen() -> Eigen:
    return Eigen()


NUMBER = 3
