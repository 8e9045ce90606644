"""Heads, widths and channels through Concat, Split and Pad: dead units leave without a trace, and readers make good for live ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgewise.quantize import QuantizeError, prune
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Normal = Callable[..., Dataset]


class Joint(nn.Module):
    """Attention as in timm: one product for queries, keys and values, picked apart after a transposition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(12, 24), nn.LayerNorm(24)
        self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)
        self.fc1, self.fc2, self.head = nn.Linear(24, 40), nn.Linear(40, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(x)
        q, k, v = self.qkv(y).reshape(len(y), -1, 3, 6, 4).permute(2, 0, 3, 1, 4).unbind(0)
        found = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
        x = x + self.proj(found.transpose(1, 2).reshape(len(y), -1, 24))
        x = x + self.fc2(functional.gelu(self.fc1(x)))
        return self.head(x.mean(1))


class Apart(Joint):
    """The same with a product for each of the three, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(x)
        q, k, v = (part(y).view(len(y), -1, 6, 4).transpose(1, 2) for part in self.parts)
        found = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
        x = x + self.proj(found.transpose(1, 2).reshape(len(y), -1, 24))
        return self.head((x + self.fc2(functional.gelu(self.fc1(x)))).mean(1))


class Branches(nn.Module):
    """Two branches that are concatenated, a depthwise convolution over both, a split, and a shortcut padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.c, self.d = nn.Conv2d(12, 16, 1), nn.Conv2d(12, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = functional.relu(torch.cat([self.a(x), self.b(x)], 1))
        left, right = functional.relu(self.depthwise(whole)).chunk(2, 1)
        wide = functional.pad(left, (0, 0, 0, 0, 2, 2))
        return self.head((self.c(left) + self.d(right) + wide).mean((2, 3)))


def exported(network: type[nn.Module], *shape: int) -> ir.Model:
    """The network with random weights; the caller may change it."""
    return _exported(network, *shape).clone()


@cache
def _exported(network: type[nn.Module], *shape: int) -> ir.Model:
    torch.manual_seed(0)
    module = network()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    program = torch.onnx.export(module.eval(), (torch.zeros(*shape),), dynamo=True, verbose=False)
    assert program is not None
    model = ir.from_proto(program.model_proto)
    model.graph.inputs[0].name = "x"
    for name, parameter in module.named_parameters():  # the exporter forgets the names of what it transposes
        for value in list(model.graph.initializers.values()):
            found = value.const_value.numpy()  # type: ignore[union-attr]
            for wanted in (parameter.detach().numpy(), parameter.detach().numpy().T):
                if found.shape == wanted.shape and np.array_equal(found, wanted):
                    value.name = name
    return model


def array(model: ir.Model, name: str) -> np.ndarray:
    return model.graph.initializers[name].const_value.numpy()  # type: ignore[union-attr]


def maker(model: ir.Model, weight: str) -> str:
    """The name of the node that reads a weight."""
    (use,) = model.graph.initializers[weight].uses()
    return str(use.node.name)


def kill(model: ir.Model, name: str, axis: int, entries: list[int]) -> None:
    value = model.graph.initializers[name]
    changed = np.moveaxis(np.array(array(model, name)), axis, 0)
    changed[entries] = 0
    value.const_value = ir.tensor(np.moveaxis(changed, 0, axis), name=name)


def outputs(model: ir.Model, shape: tuple[int, ...], seed: int = 3) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return next(iter(OnnxRunner(model).run({"x": x}).values()))


def same(one: ir.Model, other: ir.Model, *shape: int) -> None:
    np.testing.assert_allclose(outputs(one, shape), outputs(other, shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("joint", [True, False])
def test_dead_heads_go_without_a_trace(joint: bool) -> None:
    """Heads 1, 2 and 4 are zero in queries, keys and values: the smallest ones, and nobody misses them."""
    model = exported(Joint if joint else Apart, 1, 7, 12)
    names = [("qkv", 72)] if joint else [(f"parts.{part}", 24) for part in range(3)]
    for name, width in names:
        for start in range(0, width, 24):
            dead = [start + head * 4 + entry for head in (1, 2, 4) for entry in range(4)]
            kill(model, f"{name}.weight", 1, dead)
            kill(model, f"{name}.bias", 0, dead)
    made = prune(model, pattern="head", sparsity=0.5)
    same(model, made.model, 1, 7, 12)
    assert array(made.model, "proj.weight").shape == (12, 24)
    for name, width in names:
        assert array(made.model, f"{name}.weight").shape == (24, width // 2)
    assert {entry["density"] for entry in made.report["layers"]} == {0.5}
    reasons = {entry["node"]: entry["reason"] for entry in made.report["refused"]}
    assert "no attention heads" in reasons[maker(model, "fc1.weight")]


def test_a_dead_width_goes_and_the_stream_stays() -> None:
    model = exported(Joint, 1, 7, 12)
    dead = list(range(0, 40, 2))
    kill(model, "fc2.weight", 0, dead)  # nobody listens to them
    kill(model, "fc1.weight", 1, dead)
    made = prune(model, pattern="width", sparsity=0.5)
    same(model, made.model, 1, 7, 12)
    assert array(made.model, "fc1.weight").shape == (24, 20)
    assert [entry["weight"] for entry in made.report["layers"]] == ["fc1.weight"]
    reasons = {entry["node"]: entry["reason"] for entry in made.report["refused"]}
    assert "the pattern head removes them" in reasons[maker(model, "qkv.weight")]


def test_channels_go_through_concat_depthwise_split_and_pad() -> None:
    model = exported(Branches, 1, 3, 8, 8)
    made = prune(model, pattern="channel", sparsity=0.25)
    assert outputs(made.model, (1, 3, 8, 8)).shape == (1, 5)
    # Left and right halves of what the depthwise convolution makes of an input channel go with it.
    a, b, wide = (array(made.model, f"{name}.weight") for name in ("a", "b", "depthwise"))
    assert len(a) + len(b) == 9
    assert len(wide) == 18
    assert array(made.model, "c.weight").shape[1] + array(made.model, "d.weight").shape[1] == 18


@pytest.mark.parametrize("padded", [0, 14])
def test_dead_channels_of_a_concat_go_without_a_trace(padded: int) -> None:
    """One of the channels that the shortcut pads with zeros goes too, before or behind it."""
    model = exported(Branches, 1, 3, 8, 8)
    kill(model, "a.weight", 0, [1, 5])
    kill(model, "a.bias", 0, [1, 5])
    kill(model, "b.weight", 0, [3])
    kill(model, "b.bias", 0, [3])
    dead = [2, 3, 10, 11, 22, 23]  # what depthwise makes of the inputs 1, 5 and 11
    kill(model, "depthwise.weight", 0, dead)
    kill(model, "depthwise.bias", 0, dead)
    # Left channel 3 lies on channel 5 of the sum, behind the padding, and so on: these cannot be heard either.
    for name in ("c", "d"):
        kill(model, f"{name}.weight", 0, [4, 5, 12, 13, padded])
        kill(model, f"{name}.bias", 0, [4, 5, 12, 13, padded])
    made = prune(model, pattern="channel", sparsity=0.25)
    same(model, made.model, 1, 3, 8, 8)


@pytest.mark.parametrize(("pattern", "weight"), [("head", "proj.weight"), ("width", "fc2.weight")])
def test_readers_make_good_for_what_goes(normal: Normal, pattern: str, weight: str) -> None:
    model = exported(Joint, 1, 7, 12)
    data = normal(64, (1, 7, 12))
    plain = prune(model, pattern=pattern, sparsity=0.5)
    made = prune(model, pattern=pattern, sparsity=0.5, criterion="second_order", data=data)
    assert array(made.model, weight).shape == array(plain.model, weight).shape
    want = outputs(model, (1, 7, 12), 99)
    errors = [float(np.square(outputs(each.model, (1, 7, 12), 99) - want).sum()) for each in (made, plain)]
    assert errors[0] < 0.7 * errors[1]
    assert {entry["by"] for entry in made.report["layers"]} == {"error"}


@pytest.mark.slow
def test_reconstruction_goes_on_from_there(normal: Normal) -> None:
    model, data = exported(Joint, 1, 7, 12), normal(96, (1, 7, 12))
    errors = []
    for reconstruct in (False, True):
        made = prune(model, pattern="width", sparsity=0.5, criterion="second_order", data=data, reconstruct=reconstruct)
        assert array(made.model, "fc1.weight").shape == (24, 20)
        pairs = [[outputs(each, (1, 7, 12), seed) for each in (model, made.model)] for seed in range(900, 930)]
        errors.append(sum(float(np.square(have - want).sum()) for want, have in pairs))
    assert any(row.get("kept") for row in made.report["reconstructed"])
    assert errors[1] < errors[0]


def test_layers_that_lose_inputs_and_outputs_are_solved_too(graph: Callable[..., ir.Model], normal: Normal) -> None:
    text = (
        "(float[1, 6, 8, 8] x, float[12, 6, 3, 3] a, float[12] ab, float[16, 12, 3, 3] b, float[16] bb, float[4, 16, 1, 1] c)"
        " => (float[1, 4, 4, 4] y) { n = Tanh(x) t = Conv(n, a, ab) u = Relu(t) v = Conv(u, b, bb) w = Relu(v) y = Conv(w, c) }"
    )
    rng = np.random.default_rng(0)
    shapes = {"a": (12, 6, 3, 3), "ab": (12,), "b": (16, 12, 3, 3), "bb": (16,), "c": (4, 16, 1, 1)}
    model = graph(text, {name: (rng.normal(size=shape) * 0.2).astype(np.float32) for name, shape in shapes.items()})
    want = outputs(model, (1, 6, 8, 8))
    errors = []
    for options in ({}, {"criterion": "second_order", "data": normal(40, (1, 6, 8, 8))}):
        made = prune(model, pattern="channel", sparsity=0.25, **options)  # type: ignore[arg-type]
        assert array(made.model, "b").shape == (12, 9, 3, 3)
        errors.append(float(np.square(outputs(made.model, (1, 6, 8, 8)) - want).sum()))
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("densities", ["sensitivity", "learned"])
def test_steps_take_from_what_is_dear_and_not_missed(densities: str, normal: Normal, tmp_path: Path) -> None:
    """The MLP costs a hundred times the other layers: the budget is met there, with no unit more than needed."""
    model = exported(Joint, 1, 7, 12)
    layers = [
        node for node in model.graph if node.op_type in ("Gemm", "MatMul") and node.inputs[1].const_value is not None
    ]  # type: ignore[union-attr]
    dear = {maker(model, "fc1.weight"), maker(model, "fc2.weight")}
    table = [
        {
            "op": n.op_type,
            "name": n.name,
            "weight": list(n.inputs[1].shape),
            "costs": [[0, 0], [1, 100 if n.name in dear else 1]],
        }  # type: ignore[union-attr]
        for n in layers
    ]
    (tmp_path / "costs.json").write_text(json.dumps({"schema_version": 1, "unit": "mJ", "layers": table}))
    data = normal(32, (1, 7, 12))
    made = prune(model, pattern="width", sparsity=0.4, densities=densities, costs=tmp_path / "costs.json", data=data)
    assert [entry["weight"] for entry in made.report["layers"]] == ["fc1.weight"]
    kept = array(made.model, "fc1.weight").shape[1]
    assert 200 * kept / 40 + 4 <= 0.6 * 204
    assert 200 * (kept + 3) / 40 + 4 > 0.6 * 204, "and no more than needed"


@pytest.mark.parametrize("densities", ["sensitivity", "learned"])
def test_groups_differ_by_what_they_cost_the_outputs(
    densities: str, graph: Callable[..., ir.Model], normal: Normal
) -> None:
    """Two MLPs side by side of one size; the outputs of the second count for nothing."""
    text = (
        "(float[1, 5, 8] x, float[8, 16] a, float[16, 4] b, float[8, 16] c, float[16, 4] d) => (float[1, 5, 4] y)"
        "{ n = Tanh(x) t = MatMul(n, a) u = Relu(t) v = MatMul(u, b) p = MatMul(n, c) q = Relu(p) r = MatMul(q, d) y = Add(v, r) }"
    )
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 16), "b": (16, 4), "c": (8, 16), "d": (16, 4)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["d"] *= 1e-3
    model = graph(text, arrays)
    made = prune(model, pattern="width", sparsity=0.4, densities=densities, data=normal(16, (1, 5, 8)))
    assert {entry["weight"]: entry["density"] for entry in made.report["layers"]} == {"c": pytest.approx(0.2, abs=0.07)}
    assert array(made.model, "a").shape == (8, 16)


def test_steps_are_judged_with_readers_that_make_good(graph: Callable[..., ir.Model], normal: Normal) -> None:
    """Half of the first MLP says what the other half says: dear as zeros, free for a reader that is solved anew."""
    text = (
        "(float[1, 9, 8] x, float[8, 16] a, float[16, 4] b, float[8, 16] c, float[16, 4] d) => (float[1, 9, 4] y)"
        "{ n = Tanh(x) t = MatMul(n, a) u = Relu(t) v = MatMul(u, b) p = MatMul(n, c) q = Relu(p) r = MatMul(q, d) y = Add(v, r) }"
    )
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 16), "b": (16, 4), "c": (8, 16), "d": (16, 4)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["a"][:, 8:] = arrays["a"][:, :8]
    arrays["d"] *= 0.3
    taken = {}
    for criterion in ("magnitude", "second_order"):
        made = prune(
            graph(text, arrays),
            pattern="width",
            sparsity=0.2,
            densities="sensitivity",
            criterion=criterion,
            data=normal(32, (1, 9, 8)),
        )
        taken[criterion] = {entry["weight"] for entry in made.report["layers"]}
    assert taken == {"magnitude": {"c"}, "second_order": {"a"}}


@pytest.mark.parametrize("densities", ["uniform", "sensitivity", "learned"])
def test_what_stays_is_a_multiple(densities: str, graph: Callable[..., ir.Model], normal: Normal) -> None:
    text = (
        "(float[1, 5, 8] x, float[8, 40] a, float[40, 32] b, float[32, 8] c, float[8, 4] d) => (float[1, 5, 4] y)"
        "{ n = Tanh(x) t = MatMul(n, a) u = Relu(t) v = MatMul(u, b) p = Relu(v) q = MatMul(p, c) r = Relu(q) y = MatMul(r, d) }"
    )
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 40), "b": (40, 32), "c": (32, 8), "d": (8, 4)}
    model = graph(text, {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    made = prune(model, pattern="channel", sparsity=0.3, densities=densities, data=normal(8, (1, 5, 8)), multiple=8)
    widths = [array(made.model, name).shape[1] for name in "abc"]
    assert widths[2] == 8 and all(width % 8 == 0 for width in widths)
    assert made.report["sparsity"] >= 0.3
    reasons = {entry["node"]: entry["reason"] for entry in made.report["refused"]}
    assert "a multiple of 8 is to stay" in reasons[maker(model, "c")]


def test_nothing_goes_at_sparsity_zero() -> None:
    model = exported(Joint, 1, 7, 12)
    with pytest.raises(QuantizeError, match="nothing to prune"):
        prune(model, pattern="head", sparsity=0.0)


def test_a_layer_that_is_to_stay_keeps_those_bound_to_it() -> None:
    model = exported(Branches, 1, 3, 8, 8)
    kept = maker(model, "c.weight")
    made = prune(model, pattern="channel", sparsity=0.25, skip=[kept])
    reasons = {entry["node"]: entry["reason"] for entry in made.report["refused"]}
    assert reasons[kept] == "asked for"
    assert reasons[maker(model, "d.weight")] == f"its channels are bound to those of {kept!r}, which stays: asked for"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "wanda"}, "found criterion wanda; expected magnitude or second_order"),
        ({"densities": "erk"}, "found densities erk; expected uniform or sensitivity or learned"),
        ({"criterion": "second_order"}, "no calibration data"),
        ({"multiple": 0}, "found multiple 0 with pattern head"),
        ({"multiple": 8, "pattern": "slice", "criterion": "second_order"}, "found multiple 8; expected 1"),
        ({"multiple": 8, "pattern": "unstructured"}, "expected 1 or more, with channel, width or head"),
    ],
)
def test_what_heads_cannot_have(options: dict[str, object], message: str) -> None:
    with pytest.raises(QuantizeError) as error:
        prune(exported(Joint, 1, 7, 12), **{"pattern": "head", "sparsity": 0.5, **options})  # type: ignore[arg-type]
    assert message in str(error.value)
