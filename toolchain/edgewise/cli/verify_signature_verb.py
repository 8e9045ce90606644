"""``edgewise verify-signature``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_signature
from edgewise.cli.work import perform

Key = Annotated[
    str, typer.Option("--key", metavar="FILE", help="The Ed25519 public key, PEM, that must have signed it.")
]


def run(bundle: o.BundlePath, *, key: Key, as_json: o.Json = False) -> None:
    """Check that a bundle was signed by a key and is as it was then."""
    from edgewise.verbs.sign import verify_signature

    perform(lambda progress: verify_signature(bundle, key), show_signature, as_json=as_json)
