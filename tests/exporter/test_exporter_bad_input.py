"""What a user can get wrong: each a sentence in five parts."""

from __future__ import annotations

import importlib.util
import pickle
import zipfile

import numpy as np
import pytest

from edgewise.exporter import export, open_source
from edgewise.runtime.errors import EdgewiseError, RunError
from edgewise.runtime.tensors import TensorSpec

torch = pytest.importorskip("torch")

IMAGE = TensorSpec("image", "float32", ("batch", 3, 16, 16))


class Evil:
    """Unpickling it would run a command."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('the code in the pickle ran')",))


def refused(*parts: str):
    """The error's text must hold all parts, in this order."""
    return pytest.raises(EdgewiseError, match="(?s)" + ".*".join(parts))


@pytest.fixture
def weights(network, tmp_path):
    def save(change=lambda state: state):
        torch.save(change(network("tiny").state_dict()), tmp_path / "model.pth")
        return tmp_path / "model.pth"

    return save


class TestFiles:
    def test_missing(self, tmp_path):
        with refused("cannot read the network", "none.pth", "no such file", "Check the path"):
            open_source(tmp_path / "none.pth")

    def test_empty(self, tmp_path):
        (tmp_path / "m.pth").touch()
        with refused("cannot read the network", "an empty file"):
            open_source(tmp_path / "m.pth")

    def test_a_folder(self, tmp_path):
        with refused("cannot read the network", "a folder", "config.json"):
            open_source(tmp_path)

    @pytest.mark.parametrize("page", ["<!DOCTYPE html><html>404</html>", "\n <html><body>Sign in</body></html>"])
    def test_web_page(self, tmp_path, page):
        (tmp_path / "m.pth").write_text(page)
        with refused(r"a web page \(HTML\)", "expected a .pt2, TorchScript", "fetch the file itself"):
            open_source(tmp_path / "m.pth")

    def test_git_lfs_pointer(self, tmp_path):
        (tmp_path / "m.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
        with refused("a Git LFS pointer", "git lfs pull"):
            open_source(tmp_path / "m.pth")

    @pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
    def test_cut_checkpoint(self, weights, keep, networks_file):
        path = weights()
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
        with refused("cannot read", "model.pth", "cut"):
            open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])

    def test_cut_legacy_checkpoint(self, network, tmp_path, networks_file):
        path = tmp_path / "old.pth"
        torch.save(network("tiny").state_dict(), path, _use_new_zipfile_serialization=False)
        open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])
        path.write_bytes(path.read_bytes()[:-400])
        with refused("cannot read the checkpoint", "cut"):
            open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])

    def test_cut_safetensors(self, network, tmp_path, networks_file):
        from safetensors.torch import save_file

        path = tmp_path / "m.safetensors"
        save_file(network("tiny").state_dict(), path)
        path.write_bytes(path.read_bytes()[:-100])
        with refused("cannot read the checkpoint", "bytes that do not decode", "cut"):
            open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])

    def test_cut_onnx(self, tmp_path):
        (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
        with refused("cannot read the model", "m.onnx", "expected an ONNX file"):
            open_source(tmp_path / "m.onnx")

    def test_other_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
            archive.writestr("readme.txt", "hello")
        with refused("a zip archive that PyTorch did not write"):
            open_source(tmp_path / "m.pth")

    def test_something_else(self, tmp_path):
        (tmp_path / "m.pth").write_bytes(b"GIF89a" + b"0" * 100)
        with refused("a file that begins with b'GIF89a"):
            open_source(tmp_path / "m.pth")


class TestCode:
    @pytest.mark.parametrize("legacy", [False, True])
    def test_pickle_with_code(self, tmp_path, legacy):
        torch.save({"state_dict": Evil()}, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)
        with refused("the checkpoint holds more than weights", "m.pth", "exec", "--trust-pickle"):
            open_source(tmp_path / "m.pth", arch="torch.nn:Identity")

    def test_bare_pickle_with_code(self, tmp_path):
        (tmp_path / "m.pth").write_bytes(pickle.dumps(Evil()))
        with refused("the checkpoint holds more than weights", "--trust-pickle"):
            open_source(tmp_path / "m.pth")

    def test_whole_module(self, network, tmp_path):
        torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "m.pth")
        with refused("the checkpoint holds more than weights", "torch.nn", "state_dict", "--trust-pickle"):
            open_source(tmp_path / "m.pth")
        spec = TensorSpec("x", "float32", (1, 2))
        source = open_source(tmp_path / "m.pth", trust_pickle=True, inputs=[spec])
        assert source.facts["pickled"] is True
        assert source.run({"x": np.ones((1, 2), np.float32)})["output"].shape == (1, 2)

    def test_exported_program_with_code(self, network, tmp_path):
        program = torch.export.export(
            network("squarer"), (torch.ones(2, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)
        )
        torch.export.save(program, tmp_path / "good.pt2")
        for change, found in (
            (lambda name, data: data.replace(b"Symbol(", b"exec  ("), "the shape expression"),
            (lambda name, data: pickle.dumps(Evil()) if name.endswith(".pt") else data, "more than tensors"),
        ):
            with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
                changed = [
                    (info.filename, good.read(info), change(info.filename, good.read(info))) for info in good.infolist()
                ]
                assert any(before != after for _, before, after in changed)
                for name, _, after in changed:
                    bad.writestr(name, after)
            with refused("the exported program holds code", found, "--trust-pickle"):
                open_source(tmp_path / "bad.pt2")


class TestWeights:
    def test_no_architecture(self, weights):
        with refused("a state dict needs its architecture", "tensors by name", "expected --arch"):
            open_source(weights())

    @pytest.mark.slow
    def test_no_architecture_but_a_guess(self, tmp_path):
        state = {f"layer1.0.{name}.weight": torch.zeros(4) for name in ("conv1", "bn1", "conv2")}
        torch.save(state, tmp_path / "m.pth")
        with refused("a state dict needs its architecture", "they look like a ResNet"):
            open_source(tmp_path / "m.pth")

    def test_other_names(self, weights, networks_file):
        path = weights(lambda state: {key.replace("conv2", "other"): value for key, value in state.items()})
        with refused(
            "the weights do not fit the architecture",
            "--arch .*networks.py:tiny",
            r"2 missing \(conv2.weight, conv2.bias\) and 2 unexpected \(other.weight, other.bias\)",
        ):
            open_source(path, arch=f"{networks_file}:tiny", inputs=[IMAGE])

    def test_other_shape(self, weights, networks_file):
        with refused("a weight does not fit", "head.weight", r"found shape \[4, 8\]; expected \[9, 8\]", "num_classes"):
            open_source(weights(), arch=f"{networks_file}:tiny", arch_args={"num_classes": 9}, inputs=[IMAGE])

    def test_no_weights(self, tmp_path):
        torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "m.pth")
        with refused("the checkpoint holds no weights", "keys epoch, lr"):
            open_source(tmp_path / "m.pth", arch="torch.nn:Identity")

    def test_weights_of_several_networks(self, tmp_path):
        torch.save({"epoch": 3, "student": {"w": torch.ones(1)}, "teacher": {"w": torch.ones(1)}}, tmp_path / "m.pth")
        with refused(
            "the checkpoint holds no weights", "keys epoch, student, teacher, of which student, teacher hold tensors"
        ):
            open_source(tmp_path / "m.pth", arch="torch.nn:Identity")


class TestArch:
    @pytest.mark.parametrize(
        ("arch", "parts"),
        [
            ("resnet18", ("--arch resnet18", "module:function or path.py:function")),
            ("no.such.module:net", ("--arch no.such.module:net", "no module")),
            ("nowhere.py:net", ("no file nowhere.py",)),
            ("{file}:no_such", ("no 'no_such'",)),
            ("{file}:NUMBER", ("'NUMBER'", "something that can be called")),
            ("{file}:not_a_network", ("the architecture is not a network", "int returned", "torch.nn.Module")),
            ("{file}:fails", ("cannot build the architecture", "ValueError: the width must be even")),
            ("hf:no/such/folder", ("not a folder of Hugging Face", "no such folder", "Nothing is downloaded")),
        ],
    )
    def test_wrong(self, weights, networks_file, arch, parts):
        with refused(*parts):
            open_source(weights(), arch=arch.format(file=networks_file), inputs=[IMAGE])

    def test_wrong_arguments(self, weights, networks_file):
        with refused("cannot build the architecture", "TypeError", "a callable that takes classes", "--arch-args"):
            open_source(weights(), arch=f"{networks_file}:tiny", arch_args={"classes": 3}, inputs=[IMAGE])

    def test_a_file_that_does_not_import(self, weights, tmp_path):
        (tmp_path / "broken.py").write_text("import no_such_package\n")
        with refused("--arch", "no_such_package"):
            open_source(weights(), arch=f"{tmp_path / 'broken.py'}:net", inputs=[IMAGE])

    def test_unknown_timm_name(self, weights):
        if importlib.util.find_spec("timm") is None:
            pytest.skip("needs timm")
        with refused("timm has no such model", "--arch timm:resnet81", "such as .*resnet"):
            open_source(weights(), arch="timm:resnet81")


class TestInputs:
    def test_no_inputs(self, weights, networks_file):
        with refused("does not say what its inputs look like", "no --input", "Pass --input NAME="):
            open_source(weights(), arch=f"{networks_file}:tiny")

    def test_shape_that_the_network_refuses(self, network):
        with refused("the network does not take the inputs", r"image float32\[\d, 5, 16, 16\]", "--input"):
            export(network("tiny"), inputs=[TensorSpec("image", "float32", ("batch", 5, 16, 16))])

    def test_wrong_array(self, network):
        source = open_source(network("tiny"), inputs=[IMAGE])
        with refused("input 'image' does not fit", r"float64\[1, 3, 16, 16\]", r"float32\[batch, 3, 16, 16\]"):
            source.run({"image": np.ones((1, 3, 16, 16))})
        with refused("the inputs do not fit", "found picture; expected image"):
            source.run({"picture": np.ones((1, 3, 16, 16), np.float32)})

    def test_a_dim_that_the_network_fixes(self, network):
        spec = TensorSpec("table", "float32", (2, "columns", 3))
        with refused(
            "the network fixes a dynamic dim", "input 'table', dim 'columns'", r"--input table=float32\[2, 9, 3\]"
        ):
            export(network("deciding"), inputs=[spec])

    def test_an_operator_without_a_form(self, network):
        with refused("the network cannot be traced", "the operator aten.linalg_eig"):
            export(network("eigen"), inputs=[TensorSpec("x", "float32", (3, 3))])

    def test_control_flow_that_depends_on_data(self, network):
        with refused(
            "the network cannot be traced", r"networks.py:\d+ in forward: if x.sum\(\) > 0", "depend", "torch.where"
        ):
            export(network("branching"), inputs=[TensorSpec("x", "float32", (2, 3))])

    def test_old_opset(self, network):
        with refused("cannot export to this opset", "opset 11", "expected 18 or later"):
            export(network("tiny"), inputs=[IMAGE], opset=11)


def test_onnx_with_data_outside_its_folder(tmp_path):
    import onnx

    (tmp_path / "inner").mkdir()
    weight = onnx.numpy_helper.from_array(np.ones(4000, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [4000])],
        [onnx.helper.make_tensor_value_info("y", 1, [4000])],
        [weight],
    )
    onnx.save_model(onnx.helper.make_model(graph), tmp_path / "inner" / "m.onnx", save_as_external_data=True,
                    location="data.bin", size_threshold=0)  # fmt: skip
    data = (tmp_path / "inner" / "m.onnx").read_bytes()
    (tmp_path / "secret.b").write_bytes((tmp_path / "inner" / "data.bin").read_bytes())
    (tmp_path / "inner" / "m.onnx").write_bytes(data.replace(b"data.bin", b"../sec.b"))
    (tmp_path / "sec.b").write_bytes((tmp_path / "secret.b").read_bytes())
    with pytest.raises(RunError, match=r"cannot read external data.*'../sec.b', which lies outside the folder"):
        export(tmp_path / "inner" / "m.onnx")


def test_ctrl_c_leaves_nothing_behind(network, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(task: str, done: int, total: int | None) -> None:
        if task == "clean":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(network("tiny"), inputs=[IMAGE], progress=interrupt)
    assert list(tmp_path.iterdir()) == []
