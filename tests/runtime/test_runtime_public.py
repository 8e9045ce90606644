"""The public names of edgewise.runtime: the list, that importing them needs numpy alone, and that it is quick by construction."""

from __future__ import annotations

import subprocess
import sys

import pytest

import edgewise.runtime

NAMES = [
    "Bundle", "EdgewiseError", "GateError", "Model", "Preprocess", "RunError", "TensorParity", "TensorSpec", "compare_outputs",
    "evaluate", "load", "open_bundle", "open_data", "random_data", "require_parity",
]  # fmt: skip

REFUSING = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {"edgewise", "numpy"} or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        raise ModuleNotFoundError(f"not on the device: {name}", name=top)

sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_list():
    assert edgewise.runtime.__all__ == NAMES
    assert len(NAMES) <= 15


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name):
    found = getattr(edgewise.runtime, name)
    assert found.__name__ == name
    assert found.__doc__


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        edgewise.runtime.nothing_of_that_name  # noqa: B018


def test_the_null_engine_runs_with_numpy_alone(make_bundle):
    path = make_bundle(engine={"kind": "null"})
    code = REFUSING + (
        "import numpy, edgewise.runtime as runtime\n"
        "model = runtime.load(sys.argv[1])\n"
        "print(model.run({'x': numpy.ones((2, 3, 8, 8), numpy.float32)})['y'].shape)\n"
        "for name in runtime.__all__: getattr(runtime, name)\n"
    )
    assert run(code, str(path)) == ["(2,", "5)"]


def test_a_missing_library_is_an_error_that_names_the_extra(make_bundle):
    code = REFUSING + (
        "import edgewise.runtime as runtime\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'onnxruntime' else find(name)\n"
        "try: runtime.load(sys.argv[1])\n"
        "except runtime.EdgewiseError as error: print(error)\n"
    )
    assert "'edgewise[cpu]'." in run(code, str(make_bundle()))


def test_the_import_alone_loads_next_to_nothing():
    code = (
        "import sys; before = set(sys.modules); import edgewise.runtime; "
        "print(*sorted(n for n in set(sys.modules) - before if n.split('.')[0] not in sys.stdlib_module_names))"
    )
    loaded = set(run(code)) - {"edgewise"}
    assert {name for name in loaded if name.startswith("edgewise.runtime")} == {
        "edgewise.runtime", "edgewise.runtime.errors", "edgewise.runtime.extras",
    }  # fmt: skip
    assert "numpy" not in loaded


def test_loading_a_model_takes_no_data_or_images():
    loaded = run("import sys; from edgewise.runtime import load; print(*sys.modules)")
    heavy = {"torch", "onnx", "onnx_ir", "onnxruntime", "PIL", "coremltools", "edgewise.runtime.data"}
    assert heavy & set(loaded) == set()
    assert "numpy" in loaded
