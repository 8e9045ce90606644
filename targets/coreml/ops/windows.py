"""Where a sliding window goes: pads, strides and dilations of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal

SPATIAL = (1, 2, 3)


@dataclass(frozen=True)
class Window:
    """Per spatial axis; ``before`` and ``after`` are the padding, unless it follows the size at run time (``same``, or ``same_lower``)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    follows: str = ""

    @property
    def reach(self) -> tuple[int, ...]:
        """How many elements a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def padding(self) -> dict[str, Any]:
        """What MIL's operations take."""
        return {"pad_type": self.follows} if self.follows else {"pad_type": "custom", "pad": self.pads()}

    def pads(self) -> list[int]:
        """MIL's order: before and after of each axis in turn."""
        return [pad for pair in zip(self.before, self.after, strict=True) for pad in pair]


def window(node: NodeView, kernel: tuple[int, ...]) -> Window:
    """The window of ``Conv`` or a pool; ``auto_pad`` is resolved where the input's sizes are known."""
    count = len(kernel)
    strides = tuple(node.integers("strides", [1] * count))
    dilations = tuple(node.integers("dilations", [1] * count))
    pads = node.integers("pads", [0] * (2 * count))
    before, after = tuple(pads[:count]), tuple(pads[count:])
    auto = node.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        sizes = [int(dim or 0) for dim in node.dims(0)[2:]]
        if 0 in sizes:
            return Window(kernel, strides, dilations, (), (), "same" if auto == "SAME_UPPER" else "same_lower")
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        total = [max((-(-size // s) - 1) * s + r - size, 0) for size, s, r in zip(sizes, strides, reach, strict=True)]
        small, large = tuple(pad // 2 for pad in total), tuple(pad - pad // 2 for pad in total)
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        before = after = (0,) * count
    return Window(kernel, strides, dilations, before, after)


def check_window(node: NodeView) -> Refusal | None:
    """What holds for convolutions and pools alike: 1 to 3 spatial axes."""
    rank = node.rank(0)
    if rank is None or rank - 2 not in SPATIAL:
        return Refusal(f"an input of rank {rank}", "rank 3, 4 or 5 (1 to 3 spatial axes)", "Reshape it first")
    return None
