"""Names of a saved program's values that depend on the program alone.

Some of coremltools' passes walk over sets, so the numbers in the names that they make up change from run to run.
"""

from __future__ import annotations

import re
from typing import Any

from edgewise.targets.coreml.names import MARK, Namer

_MADE_BY_CASTS = re.compile(r"(_cast_(fp16|u?int16))+$")


def rename_values(function: Any) -> None:
    """Give each value the name of its ONNX tensor, or else the operation's type and a number; inputs and outputs keep theirs.

    Args:
        function: MIL's ``Function`` message; changed in place.
    """
    block = function.block_specializations[function.opset]
    ports = [*(entry.name for entry in function.inputs), *block.outputs]
    names = {name: name for name in ports}
    fresh = Namer()
    for name in dict.fromkeys(ports):
        fresh.fresh(name)
    made = [(output.name, op.type) for op in block.operations for output in op.outputs if output.name not in names]
    for name, kind in made:
        if name.startswith(MARK) and not kind.startswith("const"):
            names[name] = fresh.fresh(_MADE_BY_CASTS.sub("", name.removeprefix(MARK)))
    for name, kind in made:
        if name not in names:
            names[name] = fresh.fresh(kind)
    for op in block.operations:
        _rename(op, names)


def _rename(op: Any, names: dict[str, str]) -> None:
    for output in op.outputs:
        output.name = names[output.name]
    for argument in op.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                binding.name = names[binding.name]
    if op.outputs:
        op.attributes["name"].immediateValue.tensor.strings.values[:] = [op.outputs[0].name]
