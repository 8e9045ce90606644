"""Keep PyTorch's and ONNX's chatter off the user's terminal; warnings are collected for the report."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

_LOUD = ("torch", "onnxscript", "onnx_ir", "onnx", "transformers", "timm", "huggingface_hub")
_NOISE = re.compile(
    r"treespec|is deprecated|num_batches_tracked|pytree|LeafSpec|in training mode|axis name: .* will not be used",
    re.IGNORECASE,
)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Silence stdout, stderr and logging of the libraries inside the block; give the list that warnings are added to."""
    told: list[str] = []
    loggers = {name: (logging.getLogger(name), logging.getLogger(name).level) for name in _LOUD}
    for logger, _ in loggers.values():
        logger.setLevel(logging.CRITICAL)
    sink = io.StringIO()
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("always")
            yield told
    finally:
        for logger, level in loggers.values():
            logger.setLevel(level)
        for warning in caught:
            text = str(warning.message).split("\n")[0].replace(str(Path.cwd()), ".")
            if text not in told and not _NOISE.search(text):
                told.append(text)
