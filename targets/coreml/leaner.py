"""coremltools' passes without what each of the hundred does for nothing: half of a conversion's time. The program that they make is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


@contextmanager
def leaner_passes() -> Iterator[None]:
    """Leave out what the passes of a conversion inside the block do not need.

    Programs are checked after each of the three pipelines alone, are not written out for a log that nobody reads, and are not
    searched for what packed weights lead to where no weight is packed.
    """
    from coremltools.converters.mil.mil import Block, Function, Program
    from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipelineManager

    apply, propagate = PassPipelineManager.apply_pipeline, Block._propagate_nonreplaceable_vars

    def apply_and_check(program: Any, pipeline: Any) -> None:
        with mock.patch.object(Program, "validate", lambda *_, **__: None):
            apply(program, pipeline)
        program.validate()

    def propagate_if_packed(block: Any) -> None:
        if _is_packed(_outermost(block)):
            propagate(block)
        else:
            _forget(block)

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(PassPipelineManager, "apply_pipeline", staticmethod(apply_and_check)))
        patches.enter_context(mock.patch.object(Block, "_propagate_nonreplaceable_vars", propagate_if_packed))
        for kind in (Block, Function, Program):
            patches.enter_context(mock.patch.object(kind, "__str__", object.__repr__))
        yield


def _outermost(block: Any) -> Any:
    while block.outer_op is not None:
        block = block.outer_op.enclosing_block
    return block


def _is_packed(block: Any) -> bool:
    """Whether there are ``constexpr`` operations, whose outputs are what coremltools calls nonreplaceable."""
    return any(op.op_type.startswith("constexpr_") or any(map(_is_packed, op.blocks)) for op in block.operations)


def _forget(block: Any) -> None:
    """As :meth:`Block._propagate_nonreplaceable_vars` leaves a program in which nothing is packed."""
    for op in block.operations:
        for inner in op.blocks:
            _forget(inner)
        for output in op.outputs or ():
            if output.nonreplaceable_vars_upstream:
                output._reset_nonreplaceable_vars_upstream()
