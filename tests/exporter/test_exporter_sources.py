"""Every kind of source, opened, exported and compared with PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from edgewise.exporter import ExportError, export, open_source
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")

IMAGE = TensorSpec("image", "float32", ("batch", 3, 16, 16))


@pytest.fixture(scope="module")
def trained(network):
    return network("tiny")


def save(trained, path, wrapped):
    torch.save(wrapped(trained.state_dict()), path)
    return path


WRAPPED = {
    "plain": (lambda state: state, {}),
    "state_dict": (lambda state: {"state_dict": state, "epoch": 3}, {"wrappers": ["state_dict"]}),
    "module prefix": (
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        {"wrappers": ["model"], "prefixes": ["module."]},
    ),
    "compiled and parallel": (
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        {"prefixes": ["_orig_mod.", "module."]},
    ),
    "ema first": (
        lambda state: {"model": {}, "model_ema": state, "optimizer": {"lr": 0.1}},
        {"wrappers": ["model_ema"]},
    ),
    "with the script's arguments": (
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, output=Path("out"))},
        {"wrappers": ["model"]},
    ),
    "a key of its own": (
        lambda state: {
            "step": 3,
            "backbone": state,
            "optimizer": {"state": {0: {"m": torch.ones(1)}}, "groups": [{"lr": 0.1}]},
        },
        {"wrappers": ["backbone"]},
    ),
    "averaged model": (
        lambda state: {
            "ema": {"n_averaged": torch.tensor(7)} | {f"module.{key}": value for key, value in state.items()}
        },
        {"wrappers": ["ema"], "prefixes": ["module."], "ignored": ["n_averaged"]},
    ),
}


@pytest.mark.parametrize("wrapped", list(WRAPPED))
def test_state_dict_in_any_wrapper(trained, tmp_path, networks_file, wrapped):
    wrap, facts = WRAPPED[wrapped]
    path = save(trained, tmp_path / "model.pth", wrap)
    source = open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])
    assert source.kind == "state_dict"
    assert {key: source.facts.get(key) for key in facts} == facts
    assert not {"wrappers", "prefixes", "ignored"} & (set(source.facts) - set(facts))
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        want = trained(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(source.run({"image": x})["output"], want)


def test_safetensors_and_a_pickle_give_the_same(trained, tmp_path, networks_file):
    from safetensors.torch import save_file

    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    save(trained, tmp_path / "model.bin", lambda state: state)
    x = {"image": np.ones((1, 3, 16, 16), np.float32)}
    outs = [
        open_source(tmp_path / name, arch=f"{networks_file}:tiny", inputs=[IMAGE]).run(x)["output"]
        for name in ("model.safetensors", "model.bin")
    ]
    np.testing.assert_array_equal(*outs)


def test_half_precision_weights_are_loaded_into_the_architecture(trained, tmp_path, networks_file):
    path = save(
        trained,
        tmp_path / "half.pt",
        lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
    )
    source = open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])
    assert source.run({"image": np.ones((1, 3, 16, 16), np.float32)})["output"].dtype == np.float32


def test_arch_args_reach_the_architecture(network, tmp_path, networks_file):
    path = save(network("tiny", num_classes=7), tmp_path / "seven.pth", lambda state: state)
    source = open_source(path, arch=f"{networks_file}:tiny", arch_args={"num_classes": 7}, inputs=[IMAGE])
    assert source.run({"image": np.ones((1, 3, 16, 16), np.float32)})["output"].shape == (1, 7)


def test_export_of_a_state_dict(trained, tmp_path, networks_file):
    path = save(trained, tmp_path / "model.pth", lambda state: state)
    exported = export(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])
    assert [node.op_type for node in exported.model.graph] == ["Conv", "Relu", "Conv", "Relu", "ReduceMean", "Gemm"]
    assert next(node.name for node in exported.model.graph) == "conv1/Conv"
    assert "conv1.weight" in exported.model.graph.initializers
    assert exported.inputs == [IMAGE]
    assert exported.outputs == [TensorSpec("output", "float32", ("batch", 4))]
    assert exported.parity[0].sqnr_db > 100
    assert exported.parity[0].samples == len(exported.samples) == len(exported.references) >= 3
    assert {sample["image"].shape[0] for sample in exported.samples} >= {1, 2}
    assert exported.report["passes"]["FoldAffine"] == 1
    assert exported.locations["conv1/Conv"].startswith("networks.py:")


@pytest.mark.slow
def test_pt2(trained, tmp_path):
    x = torch.ones(2, 3, 16, 16)
    program = torch.export.export(trained, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "model.pt2")
    exported = export(tmp_path / "model.pt2")
    assert (exported.source.kind, exported.inputs) == ("pt2", [TensorSpec("x", "float32", ("batch", 3, 16, 16))])
    assert exported.parity[0].sqnr_db > 100
    fixed = TensorSpec("image", "float32", (5, 3, 16, 16))
    exported = export(tmp_path / "model.pt2", inputs=[fixed])
    assert exported.inputs == [fixed]
    assert exported.outputs[0].shape == (5, 4)
    with pytest.raises(ExportError, match=r"do not fit the exported program.*expected x=float32\[batch, 3, 16, 16\]"):
        open_source(tmp_path / "model.pt2", inputs=[TensorSpec("x", "float32", (1, 3, 32, 32))])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript(trained, tmp_path, how):
    x = torch.ones(2, 3, 16, 16)
    script = (
        torch.jit.trace(trained, x)
        if how == "trace"
        else torch.jit.script(torch.nn.Sequential(trained.conv1, trained.bn1))
    )
    torch.jit.save(script, tmp_path / "model.pt")
    exported = export(tmp_path / "model.pt", inputs=[IMAGE])
    assert exported.source.kind == "torchscript"
    assert exported.parity[0].sqnr_db > 100
    assert exported.outputs[0].shape[0] == "batch"
    with pytest.raises(ExportError, match=r"does not say what its inputs look like.*Pass --input \w+="):
        open_source(tmp_path / "model.pt")


def test_live_module_with_named_inputs_and_several_outputs(network):
    specs = [TensorSpec("weight", "float32", (1,)), TensorSpec("image", "float32", (2, 4))]
    exported = export(network("several"), inputs=specs)
    assert exported.source.kind == "module"
    assert [spec.name for spec in exported.outputs] == ["scores", "best", "extra_0", "extra_1"]
    assert {parity.name: parity.exact for parity in exported.parity}["best"]
    x = {"image": np.ones((2, 4), np.float32), "weight": np.full(1, 3, np.float32)}
    np.testing.assert_array_equal(OnnxRunner(exported.model).run(x)["extra_0"], np.full((2, 4), 4, np.float32))


def test_outputs_can_be_dropped(network):
    specs = [TensorSpec("image", "float32", (2, 4)), TensorSpec("weight", "float32", (1,))]
    exported = export(network("several"), inputs=specs, drop_outputs=["extra_0", "extra_1", "best"])
    assert [node.op_type for node in exported.model.graph] == ["Relu", "Mul"]
    assert [list(reference) for reference in exported.references] == [["scores"]] * 3
    for names, found in (
        (["logits"], "no output 'logits'"),
        (["scores", "best", "extra_0", "extra_1"], "every output"),
    ):
        with pytest.raises(ExportError, match=f"cannot drop an output.*{found}"):
            export(network("several"), inputs=specs, drop_outputs=names)


def test_outputs_that_are_one_tensor_or_no_computation_at_all(network):
    exported = export(network("echo"), inputs=[TensorSpec("x", "float32", (2, 3))])
    assert [spec.name for spec in exported.outputs] == ["output_0", "output_1", "output_2", "output_3"]
    assert all(parity.exact for parity in exported.parity)


@pytest.mark.parametrize(
    "shapes",
    [
        [("batch", 3, "height", "width")],
        [("batch", "sequence"), ("batch", "sequence")],
        [("batch", "rows", "columns", 4), ("others", "length"), ("batch", "height", "width", "depth")],
    ],
)
def test_no_dynamic_dim_is_traced_at_one_and_no_two_at_the_same_size(shapes):
    from edgewise.exporter.samples import dynamic_sizes

    specs = [TensorSpec(f"input_{place}", "float32", shape) for place, shape in enumerate(shapes)]
    first, second = dynamic_sizes(specs)
    assert 1 not in first.values()
    assert len(set(first.values())) == len(first)
    assert second["batch"] == 1
    assert all(first[dim] != second[dim] > 0 for dim in first)


def test_real_data_is_what_is_compared(trained):
    from edgewise.runtime.data import random_data

    data = random_data([IMAGE], 5, seed=9, dynamic=1)
    exported = export(trained, inputs=[IMAGE], data=data)
    assert len(exported.samples) == 5  # four of the data, two of them again as one batch
    first = next(iter(data)).inputs["image"]
    np.testing.assert_array_equal(exported.samples[0]["image"], first)
    assert exported.samples[-1]["image"].shape[0] == 2


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_plain_products(network, causal):
    spec = TensorSpec("tokens", "float32", ("batch", "length", 16))
    exported = export(network("attention", causal=causal), inputs=[spec])
    found = {node.op_type for node in exported.model.graph}
    assert found >= {"Split", "MatMul", "Softmax"}
    assert not found & {"IsNaN", "Slice", "GatherND"}
    assert exported.outputs[0].shape == ("batch", "length", 16)
    assert exported.parity[0].sqnr_db > 100


def test_attention_with_a_mask_and_with_grouped_queries(network):
    specs = [TensorSpec("x", "float32", (2, 5, 8)), TensorSpec("mask", "bool", (2, 5))]
    assert export(network("masked"), inputs=specs).parity[0].sqnr_db > 100
    specs = [TensorSpec("q", "float32", (2, 4, 5, 8)), TensorSpec("kv", "float32", (2, 2, 6, 8))]
    assert export(network("grouped"), inputs=specs).parity[0].sqnr_db > 100


def test_bytes_are_the_same_in_every_run_and_name_no_machine_path(trained, tmp_path):
    from edgewise.runtime.onnx_file import write_onnx

    for name in ("a", "b"):
        write_onnx(export(trained, inputs=[IMAGE]).model, tmp_path / f"{name}.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    for piece in (b"/work", b"site-packages", b".py", b"pkg.torch", str(tmp_path).encode()):
        assert piece not in data


def test_nothing_is_printed(trained, capfd):
    export(trained, inputs=[IMAGE])
    assert capfd.readouterr() == ("", "")


def test_many_runs_silence_the_loggers_once(trained, tmp_path, networks_file, monkeypatch, capfd):
    import logging

    save(trained, tmp_path / "tiny.pth", dict)
    source = open_source(tmp_path / "tiny.pth", arch=f"{networks_file}:tiny", inputs=[IMAGE])
    logger = logging.getLogger("torch.within")
    source.module.register_forward_hook(lambda *_: logger.error("said in a run"))
    before = [logging.getLogger(name).level for name in ("torch", "onnx")]
    changes = []
    set_level = logging.Logger.setLevel
    monkeypatch.setattr(logging.Logger, "setLevel", lambda *args: (changes.append(args), set_level(*args))[1])
    sample = {"image": np.zeros((1, 3, 16, 16), np.float32)}
    with source.running():
        begun = len(changes)
        for _ in range(2):
            source.run(sample)
        assert len(changes) == begun > 0
    assert [logging.getLogger(name).level for name in ("torch", "onnx")] == before
    source.run(sample)  # alone, it silences for itself
    assert "said in a run" not in "".join(capfd.readouterr())
