"""The page as text."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from edgewise import numbers
from edgewise.page.collect import Collection
from edgewise.runtime.extras import needs

if TYPE_CHECKING:
    from jinja2 import Environment


def render(found: Collection) -> str:
    """One HTML page. Everything that comes from a file is escaped; the template is the only HTML."""
    from edgewise.page import view

    template = _environment().get_template("page.html.j2")
    style = (resources.files("edgewise.page") / "page.css").read_text(encoding="utf-8")
    text: str = template.render(found=found, view=view, style=style)
    return text


def _environment() -> Environment:
    with needs("cli"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader("edgewise", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": numbers.milliseconds,
        "bytes": numbers.size,
        "percent": numbers.percent,
        "count": numbers.count,
        "number": numbers.number,
        "sqnr": numbers.sqnr,
        "spec": numbers.spec,
        "flat": _flat,
        "proof": numbers.told_proof,
    }
    return environment


def _flat(value: Any) -> str:
    """A JSON value as prose: what is nested is written out in brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items() if inner not in (None, {}, []))
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value)
    return str(value)
