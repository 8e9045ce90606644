"""Numbers as people read them, on the terminal and on the report page."""

from __future__ import annotations

from typing import Any

_KILO = 1024
_THOUSAND = 1000


def sqnr(entry: dict[str, Any]) -> str:
    """In dB, or what there is instead."""
    if entry["exact"]:
        return "exact"
    return "incomparable" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f} dB"


def number(value: float | None) -> str | None:
    """Three digits."""
    return None if value is None else f"{value:.3g}"


def percent(value: float | None) -> str | None:
    """A fraction as a percentage."""
    return None if value is None else f"{100 * value:.2f} %"


def score(metric: str, value: float) -> str:
    """A metric's value: as a percentage where it is a share of samples; that of a user's function as it is."""
    return f"{100 * value:.2f} %" if ":" not in metric else f"{value:.4g}"


def milliseconds(value: float | None) -> str | None:
    """Three digits after the point."""
    return None if value is None else f"{value:.3f} ms"


def size(value: float | None) -> str | None:
    """Bytes in the unit that keeps the number short."""
    if value is None:
        return None
    for unit in ("B", "KiB", "MiB"):
        if value < _KILO:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KILO
    return f"{value:.2f} GiB"


def count(value: float | None) -> str | None:
    """Thousands, millions and billions by letter."""
    if value is None:
        return None
    for unit in ("", " k", " M"):
        if value < _THOUSAND:
            return f"{value:.4g}{unit}"
        value /= _THOUSAND
    return f"{value:.4g} G"


def spec(entry: dict[str, Any]) -> str:
    """A tensor's name, dtype and shape."""
    return f"{entry['name']}: {entry['dtype']}[{', '.join(map(str, entry['shape']))}]"


_NAMED_AT_MOST = 6


def told_proof(proof: dict[str, Any]) -> list[tuple[str, str]]:
    """What was read back from an engine, as names and texts; of long lists the beginning and how many more there are."""
    rows = [(name.replace("_", " "), _told(value)) for name, value in proof.items()]
    return [(name, text) for name, text in rows if text]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(inner)}" for key, inner in value.items() if inner not in (None, {}, []))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        more = [f"and {len(value) - _NAMED_AT_MOST} more"] if len(value) > _NAMED_AT_MOST else []
        return "; ".join([*map(_told, value[:_NAMED_AT_MOST]), *more])
    return str(value)
