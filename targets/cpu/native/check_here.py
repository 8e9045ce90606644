"""An engine for a better processor than this one, opened all the same to check what it computes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.engines import RunOptions, model_file
from edgewise.runtime.engines.native import open_file
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.model import Model
from edgewise.runtime.ort_session import threads_beside_others
from edgewise.targets.base import Executor
from edgewise.targets.cpu.native.engine_file import for_any_processor


def check_here(bundle: Bundle) -> Executor | None:
    """The network of a bundle's engine file with the kernels that this processor has; None where libedgewise refuses that too.

    Every level computes every file, whatever level it was packed for, and in integers all of them give the same bytes.
    """
    if bundle.manifest["engine"].get("kind") != "native":
        return None
    try:
        # The file is mapped: it may go once it is open, but not everywhere.
        with tempfile.TemporaryDirectory(prefix="edgewise-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / "model.engine"
            copy.write_bytes(for_any_processor(model_file(bundle).read_bytes()))
            model = Model(bundle, open_file(copy, bundle, RunOptions(threads_beside_others())))
    except EdgewiseError:
        return None
    facts = model.facts()
    how = f"the engine's network on libedgewise {facts['version']} with this machine's kernels ({facts['isas']}): it lacks the device's"
    return Executor(model.run, how, stand_in=True)
