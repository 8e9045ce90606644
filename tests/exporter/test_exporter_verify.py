"""The gate: corrupted graphs are caught, and the first node that diverges is named with its source line."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.exporter import ExportError, export, open_source
from edgewise.runtime.errors import GateError
from edgewise.runtime.onnx_file import write_onnx
from edgewise.runtime.progress import silent
from edgewise.runtime.tensors import TensorSpec

torch = pytest.importorskip("torch")

IMAGE = TensorSpec("image", "float32", ("batch", 3, 16, 16))


@pytest.fixture(scope="module")
def drafted(network):
    """A cleaned graph before it is stripped, with what verify needs."""
    from edgewise.exporter.clean.pipeline import clean
    from edgewise.exporter.locations import location_of
    from edgewise.exporter.samples import choose_samples, trace_example
    from edgewise.exporter.trace import trace
    from edgewise.exporter.traced_values import of_program
    from edgewise.exporter.verify import Trail

    source = open_source(network("tiny"), inputs=[IMAGE])
    samples = choose_samples(source, None, 0)
    model, program, _ = trace(source, trace_example(source, samples, 0), 18)
    clean(model)
    pairs = [(sample, source.run(sample)) for sample in samples]
    locations = {node.name: location_of(node) for node in model.graph}
    return model, pairs, Trail(of_program(program, ["image"]), locations)


def test_lines_of_pytorch_are_not_the_networks_own():
    from edgewise.exporter.locations import is_own_file

    assert not is_own_file(torch.nn.__file__)
    assert not is_own_file("<eval_with_key>.1")
    assert is_own_file(torch.nn.__file__.replace("/torch/nn/__init__.py", "/torchvision/models/resnet.py"))


def corrupted(drafted, change):
    from edgewise.exporter.verify import verify

    model, pairs, trail = drafted
    copy = model.clone()
    # meta is not part of a clone; the names before cleaning are what the search needs
    for before, after in zip(model.graph, copy.graph, strict=True):
        for old, new in zip(before.outputs, after.outputs, strict=True):
            new.meta.update(old.meta)
    change(copy.graph)
    with pytest.raises(GateError) as caught:
        verify(copy, pairs, trail, min_sqnr_db=60, progress=silent)
    assert caught.value.exit_code == 1
    return str(caught.value)


def scale(graph, name, factor):
    value = graph.initializers[name]
    value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(factor), name=name)


def test_a_wrong_weight_is_found(drafted):
    text = corrupted(drafted, lambda graph: scale(graph, "conv2.weight", 1.01))
    assert "the exported network does not compute what the source computes (output 'output'" in text
    assert "the first node that diverges is conv2/Conv (Conv, " in text
    assert "from networks.py:" in text
    assert "in forward: x = functional.relu(self.conv2(x))" in text
    assert "expected at least 60 dB SQNR" in text


def test_a_weight_that_batch_norm_was_folded_into_is_found(drafted):
    text = corrupted(drafted, lambda graph: scale(graph, "conv1.weight", 0.99))
    assert "the first node that diverges is conv1/Conv" in text
    assert "in forward: x = functional.relu(self.bn1(self.conv1(x)))" in text


def test_a_wrong_operator_is_found(drafted):
    def wrong(graph):
        relu = next(node for node in graph if node.name == "Relu_1")
        relu.op_type = "LeakyRelu"

    assert "the first node that diverges is Relu_1 (LeakyRelu, " in corrupted(drafted, wrong)


def test_a_wrong_constant_of_the_last_layer_is_found(drafted):
    assert "the first node that diverges is head/Gemm" in corrupted(
        drafted, lambda graph: scale(graph, "head.bias", 1.5)
    )


def test_a_healthy_graph_passes(drafted):
    from edgewise.exporter.verify import verify

    model, pairs, trail = drafted
    assert verify(model, pairs, trail, min_sqnr_db=60, progress=silent)[0].sqnr_db > 100


def test_integers_must_be_equal(graph):
    from edgewise.exporter.verify import verify

    model = graph([("ArgMax", ["x"], ["y"], {"axis": 1, "keepdims": 0})], {"x": (2, 3)}, {"y": (2,)})
    model.graph.outputs[0].dtype = ir.DataType.INT64
    x = {"x": np.asarray([[1, 2, 3], [3, 2, 1]], np.float32)}
    want = {"y": np.asarray([2, 0])}
    assert verify(model, [(x, want)], None, min_sqnr_db=60, progress=silent)[0].exact
    off = {"y": np.asarray([2_000_000, 0])}
    model.graph.append(ir.node("Identity", [model.graph.outputs[0]]))
    with pytest.raises(GateError, match="expected the same numbers"):
        verify(model, [(x, off)], None, min_sqnr_db=-1000, progress=silent)


def test_export_without_verification_says_nothing_about_parity(network):
    exported = export(network("tiny"), inputs=[IMAGE], verify=False)
    assert exported.parity == []


def test_an_unreachable_gate_fails(network):
    with pytest.raises(GateError, match="expected at least 500 dB"):
        export(network("tiny"), inputs=[IMAGE], min_sqnr_db=500)


class TestMerging:
    SPEC = TensorSpec("x", "float32", (1, 3, 8, 8))

    def test_branches_are_merged_and_the_source_keeps_computing_them(self, network):
        exported = export(network("merging"), inputs=[self.SPEC])
        assert [node.op_type for node in exported.model.graph] == ["Conv", "Conv"]
        assert exported.source.facts["fused"] == {"Block.reparameterize": 2}
        assert exported.source.module.blocks[0].merged is None
        assert exported.parity[0].sqnr_db > 100

    def test_a_merge_that_changes_the_outputs_is_taken_back(self, network):
        exported = export(network("merging", broken=True), inputs=[self.SPEC])
        assert [node.op_type for node in exported.model.graph] == ["Conv", "Conv", "Add"] * 2
        assert exported.source.facts["fused"] == {}
        assert "it changes the outputs" in exported.source.facts["not_fused"]["Block.reparameterize"]

    def test_what_holds_others_is_merged_before_them(self, network):
        exported = export(network("nesting"), inputs=[self.SPEC])
        assert [node.op_type for node in exported.model.graph] == ["Conv", "Conv"]
        assert exported.source.facts["fused"] == {"Pair.fuse": 1, "Scaled.fuse": 1}
        assert "not_fused" not in exported.source.facts

    def test_the_network_itself_may_offer_it(self, network):
        exported = export(network("scaled"), inputs=[TensorSpec("image", "float32", (1, 3, 8, 8))])
        assert [node.name for node in exported.model.graph] == ["Conv"]
        assert exported.source.facts["fused"] == {"Scaled.fuse": 1}

    def test_a_wrong_input_is_said_before_anything_is_merged(self, network):
        with pytest.raises(ExportError, match="the network does not take the inputs"):
            open_source(network("scaled"), inputs=[TensorSpec("x", "float32", (1, 4, 8, 8))])

    def test_not_when_unwanted(self, network):
        source = open_source(network("merging"), inputs=[self.SPEC], fuse=False)
        assert "fused" not in source.facts


class TestSizes:
    """A dim that is called dynamic, and samples of one size."""

    LENGTHS = TensorSpec("x", "float32", ("batch", "length", 4))

    @staticmethod
    def data(length):
        from edgewise.runtime.data import random_data

        return random_data([TensorSpec("x", "float32", (1, length, 4))], 3, seed=0)

    @staticmethod
    def fixed():
        """Its dynamic dim is 5 and nothing else."""
        return ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["": 18]> g (float[batch,length,4] x) => (float[batch,a,b] y)'
            "<int64[3] shape = {0, 5, 4}> { y = Reshape(x, shape) }"
        )

    def test_another_size_is_made_of_the_samples_own_values(self):
        from edgewise.exporter.samples import at_another_size

        mask = TensorSpec("mask", "int64", ("batch", "length"))
        samples = [{"x": np.arange(20.0).reshape(1, 5, 4) + n, "mask": np.arange(5)[None]} for n in range(2)]
        made = at_another_size([self.LENGTHS, mask], samples)
        length = made["mask"].shape[1]
        assert length != 5
        assert made["x"].shape == (made["mask"].shape[0], length, 4)
        np.testing.assert_array_equal(made["mask"][0], np.arange(length) % 5)
        np.testing.assert_array_equal(made["x"][0], samples[0]["x"][0, np.arange(length) % 5])

    def test_none_where_the_samples_have_several(self):
        from edgewise.exporter.samples import at_another_size

        samples = [{"x": np.zeros((batch, length, 4))} for batch, length in ((1, 5), (2, 6))]
        assert at_another_size([self.LENGTHS], samples) is None

    def test_a_dim_that_became_a_constant_is_found_though_all_samples_have_its_size(self):
        from edgewise.exporter.samples import at_another_size
        from edgewise.exporter.verify import verify

        model = self.fixed()
        samples = [{"x": np.ones((1, 5, 4), np.float32)}]
        samples.append(at_another_size([self.LENGTHS], samples))
        pairs = [(sample, {"y": sample["x"]}) for sample in samples]
        verify(model, pairs[:1], None, min_sqnr_db=60, progress=silent)
        with pytest.raises(GateError, match="does not run where the source does") as caught:
            verify(model, pairs, None, min_sqnr_db=60, progress=silent)
        assert "sample 1 of 2: x [2, 17, 4]" in str(caught.value)
        assert "expected a network that takes any size of batch, length" in str(caught.value)
        assert "--input" in str(caught.value)

    def test_export_compares_at_a_size_that_the_data_does_not_have(self):
        class AnySize(torch.nn.Module):
            def forward(self, x):
                return x.cumsum(1)

        exported = export(AnySize(), inputs=[self.LENGTHS], data=self.data(20))
        assert exported.parity[0].samples == len(exported.samples) + 1
        assert exported.report["warnings"] == []

    def test_a_source_that_has_one_size_alone_is_told(self, tmp_path):
        write_onnx(self.fixed(), tmp_path / "fixed.onnx")
        exported = export(tmp_path / "fixed.onnx", data=self.data(5))
        assert exported.parity[0].samples == len(exported.samples)
        (warning,) = exported.report["warnings"]
        assert "compared at the data's sizes alone" in warning
        assert "Reshape" in warning
