"""Inputs and outputs: ONNX's names, dtypes and shapes on one side, Core ML's on the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import onnx_ir as ir

from edgewise.runtime.core_ml_ports import Port
from edgewise.runtime.preprocess import Preprocess
from edgewise.targets.base import TargetError
from edgewise.targets.coreml.building import Values
from edgewise.targets.coreml.held import Tall
from edgewise.targets.coreml.images import image_type, normalized
from edgewise.targets.coreml.names import Namer
from edgewise.targets.coreml.node import dtype_name
from edgewise.targets.coreml.options import Choice, Options, Range, wrong_option
from edgewise.targets.coreml.ports import check_port
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import BYTES
from edgewise.targets.coreml.states import State, find_states, read_states, write_states
from edgewise.targets.coreml.states import placeholders as state_placeholders
from edgewise.targets.coreml.widen import ORIGINAL

_FIRST_WITH_LISTS = 18  # for more than one input
_MIL = {"float32": "fp32", "float64": "fp32", "float16": "fp16", "int32": "int32", "int64": "int32", "bool": "int32"}


@dataclass
class Interface:
    """The ports of a prepared graph, and what becomes of them in MIL."""

    graph: ir.Graph
    options: Options
    images: dict[str, Preprocess]
    namer: Namer = field(default_factory=Namer)
    notes: list[str] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = find_states(self.graph, self.options, self.namer)
        self._given = [value for value in self.graph.inputs if value not in [state.past for state in self.states]]
        self._wanted = [value for value in self.graph.outputs if value not in [state.present for state in self.states]]
        self.inputs = [self._port(value, "input") for value in self._given]
        self.outputs = [self._port(value, "output") for value in self._wanted]
        wide = [port.name for port in self.inputs + self.outputs if port.dtype == "int64"]
        if wide:
            self.notes.append(f"int64 is int32 in Core ML: {', '.join(wide)}")
        renamed = [
            f"{port.name!r} is {port.coreml!r}" for port in self.inputs + self.outputs if port.name != port.coreml
        ]
        if renamed:
            self.notes.append(f"names that Core ML does not allow: {', '.join(renamed)}")

    def _port(self, value: ir.Value, kind: str) -> Port:
        name, is_input = value.name or "", kind == "input"
        refusal = check_port(value, kind, self.options.ios)
        if refusal is not None:
            raise _bad_port(kind, name, refusal)
        # An output that is an input as well needs a name of its own.
        coreml = self.namer(name) if is_input or not value.is_graph_input() else self.namer.fresh(f"{name}_out")
        return Port(
            name,
            coreml,
            value.meta.get(ORIGINAL) or dtype_name(value) or "",
            not value.shape,
            self.images.get(name) if is_input else None,
        )

    def settings(self) -> dict[str, list[dict[str, Any]]]:
        """The ports as the engine's settings have them; ``runtime/core_ml_ports.py`` reads them."""
        ports = {"inputs": [_entry(port) for port in self.inputs], "outputs": [_entry(port) for port in self.outputs]}
        return ports | ({"states": [state.entry() for state in self.states]} if self.states else {})

    def placeholders(self, ct: Any, mb: Any) -> tuple[dict[str, Any], list[Any]]:
        """MIL's placeholders by name, and the types by which coremltools describes them."""
        flexible: dict[str, Any] = {}
        placeholders, described = {}, []
        for value, port in zip(self._given, self.inputs, strict=True):
            kind = ct.converters.mil.mil.types.string_to_builtin(_MIL.get(port.dtype, "int32"))
            dims = [dim if isinstance(dim, int) else str(dim) for dim in value.shape or ()] or [1]
            for dim in (dim for dim in dims if isinstance(dim, str) and dim not in flexible):
                flexible[dim] = _flexible_dim(ct, self._sizes(dim))
            public = self._public(ct, dims, flexible, port)
            shape = [flexible[dim].symbol if isinstance(dim, str) else dim for dim in dims]
            placeholders[port.coreml] = mb.placeholder(shape=shape, dtype=kind, name=port.coreml)
            if port.image is not None:
                described.append(image_type(ct, port.coreml, public, port.image))
            else:
                described.append(ct.TensorType(name=port.coreml, shape=public, dtype=kind))
        return placeholders | state_placeholders(ct, mb, self.states), described

    def _public(self, ct: Any, dims: list[Any], flexible: dict[str, Any], port: Port) -> Any:
        """The input's shape as coremltools describes it: fixed, with ranges, or a list of shapes.

        Raises:
            TargetError: ranges and choices in one input.
        """
        choices = {dim: self.options.sizes_of(dim) for dim in dims if isinstance(dim, str)}
        listed = {dim: sizes.sizes for dim, sizes in choices.items() if isinstance(sizes, Choice)}
        if not listed:
            return [flexible[dim] if isinstance(dim, str) else dim for dim in dims]
        if self.options.ios < _FIRST_WITH_LISTS and len(self._listed()) > 1:
            raise wrong_option(
                f"dims.{next(iter(listed))}",
                f"a list of sizes, which {' and '.join(self._listed())} have, for iOS {self.options.ios}",
                f"a range or a number; lists for several inputs from iOS {_FIRST_WITH_LISTS} on",
            )
        if len(listed) < len(choices):
            mixed = next(dim for dim in choices if dim not in listed)
            raise wrong_option(
                f"dims.{mixed}", f"a range, and a list for another dim of {port.name!r}", "a list as well"
            )
        shapes = [
            [dict(zip(listed, sizes, strict=True)).get(dim, dim) for dim in dims] for sizes in product(*listed.values())
        ]
        return ct.EnumeratedShapes(shapes=shapes, default=shapes[0])

    def _listed(self) -> list[str]:
        """Inputs whose sizes are given in a list."""
        chosen = {dim for dim, sizes in self.options.dims.items() if isinstance(sizes, Choice)}
        names = {value.name or "": {str(dim) for dim in value.shape or ()} for value in self._given}
        return [repr(name) for name, dims in names.items() if dims & chosen]

    def _sizes(self, dim: str) -> Range | Choice:
        chosen = self.options.sizes_of(dim)
        if isinstance(chosen, Choice):
            sizes, default = f"one of {', '.join(map(str, chosen.sizes))}", chosen.sizes[0]
        else:
            sizes, default = f"{chosen.lower} to {chosen.upper}", chosen.default
        self.notes.append(
            f"dim {dim!r} is flexible, {sizes}: Core ML compiles for its default, {default}, and is several times slower at "
            f"others (coremltools#2370); fix it with build.options.dims.{dim}"
        )
        return chosen

    def read_inputs(self, function: Any, values: Values) -> None:
        """Give the graph's inputs their variables: casts, scalars and preprocessing done."""
        mb = values.mb
        read_states(function, self.states, values)
        for value, port in zip(self._given, self.inputs, strict=True):
            var = function.inputs[port.coreml]
            if (kind := dtype_name(value)) in ("bool", *BYTES):
                var = mb.cast(x=var, dtype=kind)
            if port.scalar:
                var = mb.squeeze(x=var)
            if port.image is not None:
                var = normalized(mb, var, port.image)
            values.put(value, var)

    def write_outputs(self, function: Any, values: Values) -> list[Any]:
        """The function's outputs: each a variable of its own, in a dtype and rank that Core ML gives out, with its name."""
        write_states(function, self.states, values)
        seen: set[int] = {id(var) for var in function.inputs.values()}
        outputs = []
        for value, port in zip(self._wanted, self.outputs, strict=True):
            var = _output(values, value, port)
            if id(var) in seen or var.op is None or var.op.op_type == "const" or var.op.op_type.startswith("constexpr"):
                var = values.mb.identity(x=var)
            seen.add(id(var))
            var.set_name(port.coreml)
            outputs.append(var)
        return outputs


def _entry(port: Port) -> dict[str, Any]:
    image = {} if port.image is None else {"image": port.image.to_json()}
    return {"name": port.name, "coreml": port.coreml, "dtype": port.dtype, "scalar": port.scalar, **image}


def _output(values: Values, value: ir.Value, port: Port) -> Any:
    held = values.held(value)
    if isinstance(held, Tall):
        raise _bad_port("output", port.name, Refusal("rank above 5", "rank up to 5", "Reshape it inside the model"))
    var = values.var(value)
    if dtype_name(value) in ("bool", *BYTES):
        var = values.mb.cast(x=var, dtype="int32")
    if port.scalar:
        var = values.mb.expand_dims(x=var, axes=[0])
    return var


def _flexible_dim(ct: Any, chosen: Range | Choice) -> Any:
    """One per symbolic dim: inputs that share it share MIL's symbol."""
    if isinstance(chosen, Choice):
        return ct.RangeDim(lower_bound=min(chosen.sizes), upper_bound=max(chosen.sizes), default=chosen.sizes[0])
    return ct.RangeDim(lower_bound=chosen.lower, upper_bound=chosen.upper, default=chosen.default)


def _bad_port(kind: str, name: str, refusal: Refusal) -> TargetError:
    return TargetError(
        f"Core ML cannot take an {kind}",
        where=f"{kind} {name!r}",
        found=refusal.found,
        expected=refusal.expected,
        fix=refusal.fix,
    )
