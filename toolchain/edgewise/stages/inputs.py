"""Opening what a stage reads: the source network, DATA and the preprocessing of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewise.errors import ToolchainError
from edgewise.recipe import Recipe
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    from edgewise.exporter import Source
    from edgewise.runtime.data import Dataset


def find_source(recipe: Recipe, *, trust_pickle: bool) -> Source:
    """Open the source network that a recipe names.

    Raises:
        ToolchainError: the recipe names none.
        ExportError: it cannot be opened (exporter.open_source says why).
    """
    from edgewise.exporter import open_source

    fuse = recipe.export is None or recipe.export.fuse
    return open_source(
        source_of(recipe),
        arch=recipe.arch,
        arch_args=recipe.arch_args,
        inputs=[TensorSpec.parse(text) for text in recipe.inputs],
        trust_pickle=trust_pickle,
        fuse=fuse,
    )


def source_of(recipe: Recipe) -> str:
    """The recipe's source.

    Raises:
        ToolchainError: there is none.
    """
    if not recipe.source:
        raise ToolchainError(
            "no network to convert",
            where="SOURCE",
            found="nothing",
            expected="a checkpoint or an ONNX file",
            fix="Pass SOURCE, or a recipe with the key 'source'",
        )
    return recipe.source


def preprocess_of(text: str | None) -> Preprocess | None:
    """The preprocessing that a recipe or option describes, if any."""
    return None if text is None else Preprocess.parse(text)


def find_data(
    text: str, inputs: Sequence[TensorSpec], preprocess: str | Preprocess | None, limit: int | None = None
) -> Dataset:
    """Open DATA for a network's inputs."""
    from edgewise.runtime.data import open_data

    chosen = preprocess_of(preprocess) if isinstance(preprocess, str) else preprocess
    return open_data(text, inputs, chosen, limit=limit)
