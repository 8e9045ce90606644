"""TensorRT for RTX: imported late, with the one logger that a process may have, and the parser's words made readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.extras import needs
from edgewise.targets.errors import TargetError

_SM = re.compile(r"^SM(\d+)$")
# Places in the vendor's source, and what it says about CUDA where there is no driver: no help to a user.
_NOISE = (
    re.compile(r"\[checkMacros\.cpp::[^\]]*\] Error Code 1: Cuda Runtime.*"),
    re.compile(r"I[A-Za-z]+::\w+: Error Code \d+: (API Usage Error|Internal Error|Myelin) *"),
    re.compile(r"\(?In \w+ at /_src/[\w/.]+:\d+\)?"),
    re.compile(r"\[\w+\.cpp:\d+: \w+\] *"),
    re.compile(r"^(Assertion failed: |Invalid Node - \S+\s*)"),
)
_MEANINGS = {
    "false": "the parser has no form of it",
    "Plugin not found": "TensorRT has no such operator",
    "shiftIsAllZeros": "a zero point other than 0; TensorRT quantizes symmetrically (quantize again with --target tensorrt)",
}


@cache
def tensorrt_rtx() -> Any:
    """The module ``tensorrt_rtx``.

    Raises:
        MissingExtraError: it is not installed.
        TargetError: it is installed, and its libraries do not load.
    """
    try:
        with needs("tensorrt"):
            import tensorrt_rtx
    except EdgewiseError:
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise TargetError(
            "TensorRT for RTX does not load",
            where="import tensorrt_rtx",
            found=f"{type(error).__name__}: {error}",
            expected="its libraries for this machine (Linux or Windows, x86-64)",
            fix="Install it again: pip install --force-reinstall 'edgewise[tensorrt]'",
        ) from error
    return tensorrt_rtx


def version() -> str:
    """The version of TensorRT for RTX."""
    return str(tensorrt_rtx().__version__)


def buildable_sms() -> list[int]:
    """The compute capabilities that TensorRT for RTX builds for, without having such a GPU."""
    names = tensorrt_rtx().ComputeCapability.__members__
    return sorted(int(match[1]) for name in names if (match := _SM.match(name)))


@dataclass
class Messages:
    """What TensorRT logged."""

    errors: list[str] = field(default_factory=list)
    verbose: list[str] = field(default_factory=list)


@cache
def _logger() -> Any:
    """TensorRT keeps the first logger of a process, so there is one, and ``captured`` says where it writes."""
    trt = tensorrt_rtx()

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        """Collects instead of printing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages = Messages()

        def log(self, severity: Any, text: str) -> None:
            """Called by TensorRT, also from its threads."""
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.messages.errors.append(text)
            elif severity == trt.ILogger.VERBOSE:
                self.messages.verbose.append(text)

    return Log()


@contextmanager
def captured() -> Iterator[Messages]:
    """Collect what TensorRT logs inside the block."""
    log = _logger()
    log.messages = Messages()
    try:
        yield log.messages
    finally:
        log.messages = Messages()


@dataclass(frozen=True)
class ParserRefusal:
    """A node that the parser refuses: its index in the graph (-1: the graph as a whole) and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Parsed:
    """A network definition with what must outlive it, or what the parser refused."""

    builder: Any
    network: Any
    refusals: list[ParserRefusal]


def parse(data: bytes) -> Parsed:
    """Parse a serialized ONNX model into a strongly typed network (TensorRT for RTX has no other kind)."""
    trt = tensorrt_rtx()
    builder = trt.Builder(_logger())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, _logger())
    with captured():
        taken = parser.parse(data)
    refusals = [] if taken else [_refusal(parser.get_error(index)) for index in range(parser.num_errors)]
    return Parsed(builder, network, refusals or ([] if taken else [ParserRefusal(-1, "no reason given")]))


def _refusal(error: Any) -> ParserRefusal:
    return ParserRefusal(error.node(), readable(error.desc()))


def readable(text: str) -> str:
    """TensorRT's words without the places in its source, and its shortest ones explained."""
    for pattern in _NOISE:
        text = pattern.sub("", text)
    text = " ".join(text.split()).strip(" ().")
    return next(
        (meaning for word, meaning in _MEANINGS.items() if text == word or (word != "false" and word in text)), text
    )
