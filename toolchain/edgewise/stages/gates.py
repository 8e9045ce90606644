"""The gates of a conversion. One that was asked for and cannot be checked has not held."""

from __future__ import annotations

from typing import Any

from edgewise.recipe import Recipe
from edgewise.runtime.devices.address import LOCAL
from edgewise.runtime.errors import EdgewiseError, GateError
from edgewise.settings import ProfileSettings, VerifySettings

# 0.6525 - 0.6425 is a little more than 0.01 to a computer.
_ROUNDING = 1e-9
_NAMED_AT_MOST = 8


def bundle_gates(manifest: dict[str, Any], recipe: Recipe) -> list[GateError]:
    """Parity and accuracy, from what a manifest records."""
    settings = recipe.verify
    if settings is None:
        return []
    parity = manifest["parity"]
    if "skipped" in parity:
        return _unchecked(settings, parity["skipped"], f"target {manifest['target']}")
    return parity_gates(parity) + accuracy_gates(manifest["accuracy"], settings.min_accuracy, settings.max_drop)


def parity_gates(parity: dict[str, Any]) -> list[GateError]:
    """The gates of a manifest's ``parity`` that did not hold."""
    entries = [parity.get("against_onnx"), parity, *parity.get("functions", {}).values()]
    return [GateError(**entry["error"]) for entry in entries if entry and not entry.get("passed", True)]


def precision_gates(manifest: dict[str, Any], where: str) -> list[GateError]:
    """Products that the engine computes in another type than was asked for, as it was read back, unless the build allowed it."""
    engine = manifest["engine"]
    missed = engine.get("proof", {}).get("not_as_asked", [])
    if not missed or engine.get("settings", {}).get("allow_other_precision"):
        return []
    told = [
        one if isinstance(one, str) else f"{one['node']} ({one['asked']} asked, {one['found']} found)" for one in missed
    ]
    more = f" and {len(told) - _NAMED_AT_MOST} more" if len(told) > _NAMED_AT_MOST else ""
    return [
        GateError(
            "the engine does not compute in the precision that was asked for", where=where, found="; ".join(told[:_NAMED_AT_MOST]) + more,
            expected="each product in the type that the graph gives it",
            fix="Build it again for a device or in a precision that has such kernels, or with build.options.allow_other_precision: true",
        )
    ]  # fmt: skip


def accuracy_gates(
    accuracy: dict[str, Any] | None, min_accuracy: float | None, max_drop: float | None
) -> list[GateError]:
    """The gates on accuracy that do not hold. ``accuracy``: metric, value, n, and source_value where it was measured."""
    if accuracy is None:
        return (
            [_not_measured("accuracy", "no DATA to measure on, or --metric none")]
            if (min_accuracy, max_drop) != (None, None)
            else []
        )
    value, source = accuracy["value"], accuracy.get("source_value")
    where = f"{accuracy['metric']} over {accuracy['n']} samples"
    failed = []
    if min_accuracy is not None and not value >= min_accuracy - _ROUNDING:
        failed.append(_too_low(where, f"{value:.4f}", f"at least {min_accuracy:g}"))
    if max_drop is not None and source is None:
        failed.append(_not_measured("drop in accuracy", "no source to measure the drop from"))
    elif max_drop is not None and not source - value <= max_drop + _ROUNDING:
        found = f"{value:.4f}, {source - value:.4f} below the source's {source:.4f}"
        failed.append(_too_low(where, found, f"a drop of at most {max_drop:g}"))
    return failed


def device_gates(profile: dict[str, Any], settings: ProfileSettings | None) -> list[EdgewiseError]:
    """Another device that was asked for has to answer, and what it computes has to agree with the bundle's reference."""
    if settings is None or settings.device == LOCAL:
        return []
    if "skipped" in profile:
        return [_not_measured("the device", profile["skipped"], settings.device)]
    verdict = profile.get("parity")
    return [] if verdict is None or verdict["passed"] else [GateError(**verdict["error"])]


def latency_gates(profile: dict[str, Any], settings: ProfileSettings | None, name: str) -> list[GateError]:
    """The gate on the median latency, when it does not hold. ``profile`` may be ``{"skipped": reason}``."""
    limit = settings.max_latency_ms if settings else None
    if limit is None:
        return []
    if "skipped" in profile:
        return [_not_measured("latency", profile["skipped"], name)]
    median = profile["latency_ms"]["median"]
    if median <= limit:
        return []
    return [
        GateError(
            "the network is too slow",
            where=name,
            found=f"{median:.3f} ms in the median on this machine",
            expected=f"at most {limit:g} ms",
            fix="Quantize or prune it, change the number of threads, or raise the limit",
        )
    ]


def _unchecked(settings: VerifySettings, reason: str, where: str) -> list[GateError]:
    asked = {
        "parity": settings.min_sqnr,
        "accuracy": settings.min_accuracy,
        "drop in accuracy": settings.max_drop,
    }
    return [_not_measured(name, reason, where) for name, limit in asked.items() if limit is not None]


def _not_measured(what: str, reason: str, where: str = "") -> GateError:
    return GateError(
        f"the gate on {what} cannot be checked",
        where=where,
        found=reason,
        expected="a measurement, since the gate was asked for",
        fix="Check it on a machine that can run it, or take the gate out for this target",
    )


def _too_low(where: str, found: str, expected: str) -> GateError:
    fix = "Calibrate on more or better data, try another --method, or keep sensitive layers with --keep-float"
    return GateError("the accuracy is too low", where=where, found=found, expected=expected, fix=fix)
