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
    r"treespec|is deprecated|num_batches_tracked|_flat_weights|pytree|LeafSpec|in training mode|axis name: .* will not be used",
    re.IGNORECASE,
)


@contextlib.contextmanager
def silent_loggers() -> Iterator[None]:
    """Silence logging of the libraries inside the block.

    Around many runs it makes the ``quiet`` of each cheap: with every change of a level ``logging`` forgets what it knows of all
    loggers, of which PyTorch has a thousand, and that takes as long as a small network.
    """
    loggers = map(logging.getLogger, _LOUD)
    loud = [(logger, logger.level) for logger in loggers if logger.level < logging.CRITICAL]
    for logger, _ in loud:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in loud:
            logger.setLevel(level)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Silence stdout, stderr and logging of the libraries inside the block; give the list that warnings are added to."""
    told: list[str] = []
    sink = io.StringIO()
    try:
        with (
            silent_loggers(),
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("always")
            yield told
    finally:
        for warning in caught:
            text = str(warning.message).split("\n")[0].replace(str(Path.cwd()), ".")
            if text not in told and not _NOISE.search(text):
                told.append(text)
