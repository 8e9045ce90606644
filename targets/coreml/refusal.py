"""Why Core ML does not take a node, in the parts of an error."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.targets.base import TargetError


@dataclass(frozen=True)
class Refusal:
    """What a node has that Core ML cannot take, what it can take, and what to do; ``attribute`` (or input) when one is to blame."""

    found: str
    expected: str
    fix: str
    attribute: str = ""

    def sentence(self) -> str:
        """For ``NodeSupport.reason``."""
        blame = f"{self.attribute}: " if self.attribute else ""
        return f"{blame}{self.found}; Core ML takes {self.expected}. {self.fix}."

    def error(self, node: str, op: str) -> TargetError:
        """For a build."""
        blame = f", {self.attribute}" if self.attribute else ""
        return TargetError(
            "Core ML cannot take a node",
            where=f"node {node!r}, operator {op}{blame}",
            found=self.found,
            expected=self.expected,
            fix=self.fix,
        )
