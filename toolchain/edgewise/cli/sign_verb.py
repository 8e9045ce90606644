"""``edgewise sign``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_signature
from edgewise.cli.work import perform

Key = Annotated[str, typer.Option("--key", metavar="FILE", help="An Ed25519 private key, PEM without a passphrase.")]
NewKey = Annotated[bool, typer.Option("--new-key", help="Make the key first, and FILE.pub beside it.")]


def run(bundle: o.BundlePath, *, key: Key, new_key: NewKey = False, as_json: o.Json = False) -> None:
    """Sign a bundle, so that a runtime that pins the public key loads it as it is and nothing else."""
    from edgewise.verbs.sign import sign

    perform(lambda progress: sign(bundle, key, new_key=new_key), show_signature, as_json=as_json)
