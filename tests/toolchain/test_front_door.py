"""``import edgewise``: its public names, what it costs, and the package that is a verb as well."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgewise


def test_exported_members() -> None:
    """The public list. A name that joins or leaves it is a decision, made here."""
    assert edgewise.__all__ == [
        "EdgewiseError", "GateError", "build", "convert", "devices", "evaluate", "export", "inspect", "load", "profile",
        "prune", "quantize", "report", "verify",
    ]  # fmt: skip


@pytest.mark.parametrize("name", edgewise.__all__)
def test_every_name_is_there_and_described(name: str) -> None:
    member = getattr(edgewise, name)
    assert callable(member)
    assert inspect.getdoc(member)


@pytest.mark.parametrize(
    "name", ["build", "convert", "evaluate", "export", "inspect", "profile", "prune", "verify", "report"]
)
def test_a_verb_describes_every_argument_what_it_returns_and_raises(name: str) -> None:
    verb = getattr(edgewise, name)
    text = inspect.getdoc(verb) or ""
    for parameter in inspect.signature(verb).parameters:
        assert f"{parameter}:" in text, f"{name}: {parameter} is not described"
    assert "Returns:" in text
    assert "Raises:" in text


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        edgewise.nothing  # noqa: B018


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_edgewise_costs_numpy_at_most() -> None:
    code = (
        "import sys, edgewise; print(*sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    heavy = set(run_python(code).split()) - {"edgewise", "numpy"}
    assert not heavy & {
        "onnx",
        "onnx_ir",
        "torch",
        "onnxruntime",
        "typer",
        "rich",
        "yaml",
        "jinja2",
        "PIL",
        "coremltools",
    }


@pytest.mark.parametrize(
    "code",
    [
        "import edgewise; print(edgewise.quantize.__name__, callable(edgewise.quantize))",
        "import edgewise.quantize; print(edgewise.quantize.__name__, callable(edgewise.quantize))",
        "import edgewise.quantize as q; print(q.__name__, callable(q))",
        "from edgewise import quantize; print(quantize.__name__, callable(quantize))",
        "from edgewise.quantize.spec import QuantSpec; import edgewise; print(edgewise.quantize.__name__, callable(edgewise.quantize))",
    ],
)
def test_quantize_is_a_package_and_a_verb_however_it_is_imported(code: str) -> None:
    assert run_python(code) == "edgewise.quantize True"


def test_the_package_s_call_is_the_verb(tiny: Path, calib: Path, tmp_path: Path) -> None:
    result = edgewise.quantize(tiny, tmp_path / "q.onnx", target="cpu", calib=str(calib))  # type: ignore[operator]
    assert (tmp_path / "q.onnx").is_file()
    assert [layer["name"] for layer in result["report"]["layers"]]
    from edgewise.quantize import QuantSpec, quantize

    assert callable(quantize)
    assert QuantSpec.__module__ == "edgewise.quantize.spec"


def test_load_and_run(built: Path) -> None:
    outputs = edgewise.load(built).run({"x": np.ones((1, 3, 8, 8), np.float32)})
    assert {name: array.shape for name, array in outputs.items()} == {"y": (1, 5)}
