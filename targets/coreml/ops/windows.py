"""Where a sliding window goes: pads, strides and dilations of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal

SPATIAL = (1, 2, 3)


@dataclass(frozen=True)
class Window:
    """Per spatial axis; ``before`` and ``after`` are the padding."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """How many elements a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def pads(self) -> list[int]:
        """MIL's order: before and after of each axis in turn."""
        return [pad for pair in zip(self.before, self.after, strict=True) for pad in pair]


def window(node: NodeView, kernel: tuple[int, ...]) -> Window:
    """The window of ``Conv`` or a pool; ``auto_pad`` is resolved for the shape the input has."""
    count = len(kernel)
    strides = tuple(node.integers("strides", [1] * count))
    dilations = tuple(node.integers("dilations", [1] * count))
    pads = node.integers("pads", [0] * (2 * count))
    before, after = tuple(pads[:count]), tuple(pads[count:])
    auto = node.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        sizes = [dim or 1 for dim in node.dims(0)[2:]]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        total = [max((-(-size // s) - 1) * s + r - size, 0) for size, s, r in zip(sizes, strides, reach, strict=True)]
        small, large = tuple(pad // 2 for pad in total), tuple(pad - pad // 2 for pad in total)
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        before = after = (0,) * count
    return Window(kernel, strides, dilations, before, after)


def check_window(node: NodeView) -> Refusal | None:
    """What holds for convolutions and pools alike: 1 to 3 spatial axes, ``auto_pad`` only on fixed sizes."""
    rank = node.rank(0)
    if rank is None or rank - 2 not in SPATIAL:
        return Refusal(f"an input of rank {rank}", "rank 3, 4 or 5 (1 to 3 spatial axes)", "Reshape it first")
    if node.text("auto_pad", "NOTSET").startswith("SAME") and None in node.dims(0)[2:]:
        return Refusal(
            f"{node.text('auto_pad')} on sizes known at run time only", "fixed spatial sizes or explicit pads",
            "Export with fixed height and width, or with explicit pads", "attribute auto_pad",
        )  # fmt: skip
    return None
