"""From a MIL program to a saved package, through coremltools' passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edgewise.targets.base import TargetError
from edgewise.targets.coreml.classifier import config
from edgewise.targets.coreml.convert import Converted
from edgewise.targets.coreml.leaner import leaner_passes
from edgewise.targets.coreml.names import KEPT, MARK
from edgewise.targets.coreml.options import Options, wrong_option
from edgewise.targets.coreml.package import normalize

PACKAGE = "model.mlpackage"
_INVERTED = (
    "_inversed_"  # what coremltools puts before the name of a quotient by a constant when it makes a product of it
)
_HEADER_BYTES = 64  # of a tensor in the weight file


def compile_package(converted: Converted, options: Options, folder: Path) -> Path:
    """Run the passes and save ``model.mlpackage``; its bytes depend on the program alone.

    Raises:
        TargetError: a pass failed, or ``keep_float32`` names what is not there.
    """
    import coremltools as ct

    package = folder / PACKAGE
    precision = _precision(ct, options, converted.names)
    try:
        with _short_ones_in_the_program(), leaner_passes():
            model = ct.convert(
                converted.program,
                source="milinternal",
                convert_to="mlprogram",
                inputs=converted.input_types,
                minimum_deployment_target=ct.target[f"iOS{options.ios}"],
                pass_pipeline=_pipeline(ct),
                compute_precision=precision,
                classifier_config=config(ct, converted.labels, converted.probabilities) if converted.labels else None,
                skip_model_load=True,
            )
        model.save(str(package))
    except OSError:
        raise
    except Exception as error:  # coremltools' passes raise whatever they run into
        raise TargetError(
            "coremltools cannot compile the program",
            where=f"minimum_deployment_target iOS{options.ios}",
            found=str(error).strip() or type(error).__name__,
            expected="a program that its passes take",
            fix="Try another minimum_deployment_target or compute_precision, and report the model",
        ) from error
    normalize(package)
    return package


@contextmanager
def _short_ones_in_the_program() -> Iterator[None]:
    """Tensors of fewer bytes than their header would have stand in the program, as those of fewer than 10 numbers always do."""
    from coremltools.converters.mil.backend.mil import load

    in_file = load.should_use_weight_file

    def is_long(value: np.ndarray, *version: int) -> bool:
        return bool(in_file(value, *version)) and value.nbytes >= _HEADER_BYTES

    with mock.patch.object(load, "should_use_weight_file", is_long):
        yield


def _pipeline(ct: Any) -> Any:
    """The passes of coremltools but one.

    With float16, ``add_int16_cast`` makes indices unsigned before ``guard_negative_gather_indices`` looks at them, and -1
    becomes 65535 (coremltools 9.0). The operators' builders guard indices themselves, on signed integers.
    """
    pipeline = ct.PassPipeline()
    pipeline.remove_passes({"common::guard_negative_gather_indices"})
    return pipeline


def _precision(ct: Any, options: Options, names: dict[str, str]) -> Any:
    """Float16 for all but ``keep_float32``: names of MIL operations or of ONNX tensors."""
    if not options.half:
        return ct.precision.FLOAT32
    kept = set(options.keep_float32)
    kept_tensors = {form for name in kept if name in names for form in (names[name], MARK + names[name])}
    known = set(names) | {name for name in kept if hasattr(ct.converters.mil.Builder, name)}
    if kept - known:
        expected = "MIL operations such as layer_norm and softmax, or names of the model's tensors"
        raise wrong_option("keep_float32", repr(min(kept - known)), expected)

    def in_half(op: Any) -> bool:
        own = [name.removeprefix(_INVERTED) for name in (op.name, *(output.name for output in op.outputs))]
        inside = any(name.startswith(KEPT) for name in own)
        return not inside and op.op_type not in kept and not any(name in kept_tensors for name in own[1:])

    return ct.transform.FP16ComputePrecision(op_selector=in_half)
