"""The stage that makes an engine: the target's support is asked first, and gated where delegation must be full."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.runtime.errors import EdgewiseError, GateError
from edgewise.settings import BuildSettings
from edgewise.stages.network import Network

if TYPE_CHECKING:
    from edgewise.targets import DeviceProfile, NodeSupport, Target

_NAMED_IN_ERROR = 3


def build_engine(
    network: Network,
    target: Target,
    device: DeviceProfile,
    settings: BuildSettings,
    folder: Path,
    preprocess: dict[str, Any] | None,
) -> dict[str, Any]:
    """Build into ``folder``; gives the manifest's ``engine``.

    Raises:
        TargetError: the target cannot take the graph.
    """
    from edgewise.targets import BuildRequest, TargetError

    request = BuildRequest(network.bare(), folder, device, dict(settings.options), preprocess)
    try:
        return asdict(target.build(request))
    except (EdgewiseError, OSError):
        raise
    except Exception as error:  # vendors raise what they like, and the other targets still want their turn
        raise TargetError(
            "the build failed unexpectedly",
            where=f"--target {target.name}",
            found=f"{type(error).__name__}: {error}",
            expected="an engine, or a refusal that names a node",
            fix="This is a bug in edgewise: report it with the traceback that EDGEWISE_DEBUG=1 prints",
        ) from error


def support_of(network: Network, target: Target, device: DeviceProfile) -> list[NodeSupport]:
    """What the target says of each node of the graph that it will get."""
    return target.support(network.bare(), device)


def support_entry(support: list[NodeSupport]) -> dict[str, Any]:
    """For a manifest: how many nodes are taken, and the others with their reasons."""
    refused = [{"node": s.node, "op": s.op, "reason": s.reason} for s in support if not s.taken]
    return {"taken": len(support) - len(refused), "total": len(support), "refused": refused}


def require_full_delegation(support: dict[str, Any], target: str) -> None:
    """The gate of ``--require-full-delegation``.

    Raises:
        GateError: names the first nodes that the target does not take.
    """
    refused = support["refused"]
    if not refused:
        return
    named = "; ".join(f"{r['op']} {r['node']!r}: {r['reason']}" for r in refused[:_NAMED_IN_ERROR])
    more = f"; and {len(refused) - _NAMED_IN_ERROR} more" if len(refused) > _NAMED_IN_ERROR else ""
    raise GateError(
        "the target does not take the whole graph",
        where=f"--target {target}",
        found=f"{len(refused)} of {support['total']} nodes refused ({named}{more})",
        expected="every node taken (--require-full-delegation)",
        fix="Change these operators, choose another target or device, or leave the option out",
    )
