"""ONNX files: written the same every time, read with every tensor, and never read outside their folder."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_file import read_onnx, to_bytes, write_onnx
from edgewise.runtime.onnx_runner import OnnxRunner


def with_external(net: onnx.ModelProto, location: str, **entries: str) -> bytes:
    tensor = net.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return net.SerializeToString()


def test_what_is_written_is_read_and_the_same_every_time(net, tmp_path: Path):
    write_onnx(ir.from_proto(net), tmp_path / "a.onnx")
    model = read_onnx(tmp_path / "a.onnx")
    write_onnx(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes() == to_bytes(model, "test")
    assert {name: value.const_value.shape.numpy() for name, value in model.graph.initializers.items()} == {
        "w": (4, 3, 3, 3), "b": (4,), "f": (256, 5),
    }  # fmt: skip


def test_initializers_of_old_models_are_no_inputs(net, tmp_path: Path):
    net.ir_version = 3
    net.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in net.graph.initializer
    )
    (tmp_path / "old.onnx").write_bytes(net.SerializeToString())
    assert [value.name for value in read_onnx(tmp_path / "old.onnx").graph.inputs] == ["x"]


def test_external_data_in_the_folder_is_read(net, tmp_path: Path):
    values = numpy_helper.to_array(net.graph.initializer[0])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights.bin").write_bytes(b"skipped!" + values.tobytes())
    content = with_external(net, "sub/weights.bin", offset="8", length=str(values.nbytes))
    (tmp_path / "net.onnx").write_bytes(content)
    model = read_onnx(tmp_path / "net.onnx")
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), values)
    (tmp_path / "sub" / "weights.bin").unlink()
    model.graph.initializers["w"].const_value.numpy()  # in memory


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "sub/../../outside.bin", "link.bin"])
@pytest.mark.parametrize("place", ["initializer", "attribute", "body", "function"])
def test_external_data_outside_the_folder(net, tmp_path: Path, location, place):
    (tmp_path / "outside.bin").write_bytes(bytes(432))
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    model = onnx.ModelProto.FromString(with_external(net, location))
    evil = onnx.TensorProto.FromString(model.graph.initializer[0].SerializeToString())
    if place != "initializer":
        del model.graph.initializer[0]
        constant = onnx.NodeProto(op_type="Constant", output=["w"])
        constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(evil)
        if place == "attribute":
            model.graph.node.insert(0, constant)
        elif place == "body":
            branch = onnx.NodeProto(op_type="If", input=["c"], output=["w"])
            branch.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.node.append(constant)
            model.graph.node.insert(0, branch)
        else:
            model.functions.add(name="f", domain="d", output=["w"]).node.append(constant)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        RunError, match=r"cannot read external data \(.*tensor 'w'\): found .* lies outside the folder of the model"
    ):
        read_onnx(folder / "net.onnx")


def test_external_data_that_is_missing_or_cut(net, tmp_path: Path):
    (tmp_path / "net.onnx").write_bytes(with_external(net, "weights.bin"))
    with pytest.raises(RunError, match=r"found 'weights\.bin', which does not exist"):
        read_onnx(tmp_path / "net.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    with pytest.raises(RunError, match="content that is not a graph"):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "found no such file; expected an ONNX file"),
        (b"", "found a message without a graph"),
        (b"<!DOCTYPE html><html>Not found</html>", "found 37 bytes that do not decode"),
        (b"\x80\x04\x95pickle", "found .*expected an ONNX file.*of another format"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content, says):
    if content is not None:
        (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(RunError, match=rf"cannot read the model \(.*net\.onnx\): {says}"):
        read_onnx(tmp_path / "net.onnx")


def test_weights_that_do_not_fill_their_shape(net, tmp_path: Path):
    net.graph.initializer[0].dims[0] = 5
    (tmp_path / "net.onnx").write_bytes(net.SerializeToString())
    with pytest.raises(RunError, match=r"content that is not a graph .*ValueError"):
        read_onnx(tmp_path / "net.onnx")


def test_cut_and_flipped_models_never_crash(net, tmp_path: Path):
    """Whatever the bytes say: an error of ours, or a model that runs."""
    generator = random.Random(0)  # noqa: S311
    raw = net.SerializeToString()
    weights = range(400, len(raw) - 400)
    places = [index for index in range(len(raw)) if index not in weights]
    ran = 0
    for _ in range(150):
        changed = bytearray(raw)
        changed[generator.choice(places)] ^= 1 << generator.randrange(8)
        (tmp_path / "net.onnx").write_bytes(
            changed if generator.random() < 0.9 else changed[: generator.choice(places)]
        )
        try:
            OnnxRunner(tmp_path / "net.onnx", threads=1).run({"x": np.ones((1, 3, 8, 8), np.float32)})
        except RunError:
            continue
        ran += 1
    assert 20 < ran < 140


def test_a_failed_write_leaves_the_old_file(net, tmp_path: Path, monkeypatch):
    write_onnx(ir.from_proto(net), tmp_path / "net.onnx")
    before = (tmp_path / "net.onnx").read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        RunError, match=r"cannot write \(.*net\.onnx\): found No space left on device.*nothing was left behind"
    ):
        write_onnx(ir.from_proto(net), tmp_path / "net.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_bytes() == before
