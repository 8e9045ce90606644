"""What every target says when it cannot take something."""

from __future__ import annotations

from edgewise.targets.base import BuildRequest, NodeSupport, Target
from edgewise.targets.errors import TargetError


def refuse_unsupported(target: Target, request: BuildRequest) -> list[NodeSupport]:
    """Stop a build at the first node that the target does not take; gives the support of all nodes otherwise.

    Raises:
        TargetError: names the node, its operator and the reason, and how many more there are.
    """
    support = target.support(request.model, request.device)
    refused = [node for node in support if not node.taken]
    if refused:
        raise refusal(target.name, refused[0], len(refused) - 1)
    return support


def refusal(target: str, node: NodeSupport, more: int = 0) -> TargetError:
    """The error for a node that a target does not take."""
    return TargetError(
        f"the target {target} cannot take a node",
        where=f"node {node.node!r}, operator {node.op}",
        found=node.reason + (f" (and {more} more nodes)" if more else ""),
        expected="operators that the target has, see `edgewise inspect`",
        fix="Rewrite that part of the network, or choose another target",
    )


def unknown_scheme(target: Target, scheme: str) -> TargetError:
    """The error for a quantization scheme that a target does not have."""
    return TargetError(
        f"the target {target.name} has no such quantization scheme",
        where=f"--scheme {scheme}",
        found=repr(scheme),
        expected=f"one of {', '.join(target.schemes)}",
        fix="Choose one of these, or another target",
    )
