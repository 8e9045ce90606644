"""Paths inside the texts of a recipe: ``m.pth``, ``net.py:make``, ``hf:folder``, but not ``timm:resnet18`` or ``package.module:make``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def split_place(text: str) -> tuple[str, str, str]:
    """Take a SOURCE, ``--arch`` or DATA apart: prefix, path (empty when there is none in it), suffix.

    >>> split_place("nets/small.py:make")
    ('', 'nets/small.py', ':make')
    >>> split_place("timm:resnet18")
    ('timm:resnet18', '', '')
    """
    if text.startswith("hf:"):
        return "hf:", text[3:], ""
    head, colon, tail = text.rpartition(":")
    if colon and head.endswith(".py"):
        return "", head, colon + tail
    if colon and head and tail.isidentifier() and not Path(text).exists():
        return text, "", ""
    if text.startswith("timm:"):
        return text, "", ""
    return "", text, ""


def moved(text: str | None, start: Path, end: Path) -> str | None:
    """A text whose relative path, so far relative to ``start``, is written relative to ``end``; absolute paths stay."""
    if text is None:
        return None
    prefix, path, suffix = split_place(text)
    if not path or Path(path).is_absolute() or (prefix and not (start / path).exists()):
        return text  # the last: a name of a hub, not a folder
    place = (
        os.path.relpath(os.path.realpath(start / path), os.path.realpath(end)) if end != Path() else str(start / path)
    )
    return prefix + Path(place).as_posix() + suffix


def moved_options(options: Any, start: Path, end: Path) -> Any:
    """Build options whose texts that name a file (relative to ``start``) are written relative to ``end``."""
    if isinstance(options, dict):
        return {key: moved_options(value, start, end) for key, value in options.items()}
    if isinstance(options, list):
        return [moved_options(value, start, end) for value in options]
    is_file = isinstance(options, str) and options != "" and (start / split_place(options)[1]).is_file()
    return moved(options, start, end) if is_file else options


def place_name(text: str) -> str:
    """A text without its folders: what is published does not tell where on somebody's disk things lay.

    >>> place_name("/home/me/data.py:test")
    'data.py:test'
    """
    return text.replace("\\", "/").rstrip("/").rpartition("/")[2]
