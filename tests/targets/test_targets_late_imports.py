"""Finding targets imports no vendor's package, and a missing one is an error that names the extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("onnx", "onnx_ir", "onnxruntime", "coremltools", "tensorrt_rtx", "torch")
_FOUND = f"""
import sys
from edgewise.targets import device_profiles, targets
assert targets() and device_profiles()
print([name for name in {_HEAVY!r} if name in sys.modules])
"""
_MISSING = """
import sys
sys.modules["{package}"] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "{package}" else real(name, *rest)
import onnx_ir as ir
from edgewise.runtime.errors import MissingExtraError
from edgewise.targets import find_device, find_target
target = find_target("{target}")
x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
node = ir.node("Relu", [x], name="r")
model = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={{"": 18}}), ir_version=10)
try:
    target.support(model, find_device(target.default_device, target.name))
except MissingExtraError as error:
    print(error)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_finding_targets_imports_no_vendors_package() -> None:
    assert run(_FOUND) == "[]"


@pytest.mark.parametrize(
    ("target", "package", "extra"), [("tensorrt", "tensorrt_rtx", "tensorrt"), ("cpu", "onnxruntime", "cpu")]
)
def test_a_missing_package_names_its_extra(target: str, package: str, extra: str) -> None:
    assert f"pip install 'edgewise[{extra}]'" in run(_MISSING.format(target=target, package=package))
