"""torchvision beside a torch that has none of its operators: importable, and only imported by who needs it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="needs torchvision (timm brings it)"
)

_CODE = """
import sys
from edgewise.exporter.torchvision_schemas import make_torchvision_importable
make_torchvision_importable()
assert "torchvision" not in sys.modules, "imported, which takes seconds"
from torchvision.ops import StochasticDepth
print(StochasticDepth(0.1, "row"))
"""


def test_it_is_importable_and_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "StochasticDepth(p=0.1, mode=row)\n"), done.stderr
