"""edgewise: compile trained networks for the edge.

The verbs of the command line as functions: each returns the object that the command line prints with ``--json``, and raises
:class:`EdgewiseError` (:class:`GateError` for a gate that does not hold). ``load`` opens a bundle for an app.

``edgewise.quantize`` is a package, the passes, and a verb as well: the package can be called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.runtime.errors import EdgewiseError, GateError
from edgewise.runtime.extras import lazy_exports

if TYPE_CHECKING:
    from edgewise.runtime.model import load
    from edgewise.verbs.build import build
    from edgewise.verbs.convert import convert
    from edgewise.verbs.devices import devices
    from edgewise.verbs.evaluate import evaluate
    from edgewise.verbs.export import export
    from edgewise.verbs.inspect import inspect
    from edgewise.verbs.profile import profile
    from edgewise.verbs.prune import prune
    from edgewise.verbs.quantize import quantize
    from edgewise.verbs.report import report
    from edgewise.verbs.verify import verify
else:
    from edgewise.callable_package import make_callable

    make_callable("edgewise.quantize", "edgewise.verbs.quantize", "quantize")

__version__ = "0.1.0"

__all__ = [
    "EdgewiseError",
    "GateError",
    "build",
    "convert",
    "devices",
    "evaluate",
    "export",
    "inspect",
    "load",
    "profile",
    "prune",
    "quantize",
    "report",
    "verify",
]

_VERBS = ("build", "convert", "devices", "evaluate", "export", "inspect", "profile", "prune", "report", "verify")

__getattr__ = lazy_exports(
    {"load": "edgewise.runtime.model", **{verb: f"edgewise.verbs.{verb}" for verb in _VERBS}}, extra="all"
)
