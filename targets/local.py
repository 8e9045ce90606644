"""Running a bundle here, with the engine that its manifest names."""

from __future__ import annotations

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.model import load
from edgewise.runtime.ort_session import threads_beside_others
from edgewise.targets.base import Executor


def local_executor(bundle: Bundle) -> Executor | str:
    """The bundle's own engine, or the reason why this machine cannot open it."""
    try:
        model = load(bundle.path, threads=threads_beside_others())
    except EdgewiseError as error:
        # Without the place: the bundle is a draft now, and what is said here goes into its manifest.
        return (
            f"{error.what}: found {error.found or 'an error'}, expected {error.expected}"
            if error.expected
            else error.what
        )
    facts = ", ".join(f"{key} {value}" for key, value in model.facts().items())
    return Executor(model.run, f"the bundle's own engine on this machine ({facts})")
