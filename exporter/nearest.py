"""Guess from a checkpoint's names and shapes which architecture it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from edgewise.runtime.errors import MissingExtraError

_MAX_TRIED = 24
_MIN_OVERLAP = 0.5
# Names that tell a family: a pattern that some key must match, what it is called, where its variants are in timm.
_FAMILIES: tuple[tuple[str, str, str], ...] = (
    (r"relative_position_bias_table", "a Swin transformer", "swin_*tiny*"),
    (r"blocks\.\d+\.attn\.qkv\.weight", "a vision transformer", "vit_*patch*_224"),
    (r"stages?\.\d+\.(blocks\.)?\d+\.(conv_)?dwconv|stages\.\d+\.blocks\.\d+\.conv_dw\.weight", "a ConvNeXt", "convnext_*"),
    (r"blocks\.\d+\.\d+\.conv_pwl?\.weight", "an EfficientNet or MobileNet of timm", "*net*_100"),
    (r"features\.denseblock\d", "a DenseNet", "densenet*"),
    (r"features\.\d+\.squeeze\.weight|fire\d\.squeeze", "a SqueezeNet", ""),
    (r"layer1\.0\.(conv1|bn1)\.weight", "a ResNet", "resnet*"),
    (r"features\.\d+\.conv\.\d+\.(0\.)?weight", "a MobileNetV2 of torchvision", ""),
    (r"features\.\d+\.weight", "a VGG", "vgg*"),
    (r"encoder\.layer\.\d+\.attention\.self\.query\.weight", "a BERT of transformers (--arch hf:DIR)", ""),
    (r"model\.\d+\.(conv|cv1)\.", "a YOLO of Ultralytics", ""),
)  # fmt: skip


def nearest_architecture(tensors: Mapping[str, torch.Tensor]) -> str:
    """A guess such as ``a ResNet, nearest --arch timm:resnet18 (98 % of its tensors)``; empty when nothing is known.

    timm's variants of the family are built without memory (on the meta device) and compared by names and shapes, where timm is
    installed.
    """
    names = "\n".join(tensors)
    for pattern, family, variants in _FAMILIES:
        if re.search(pattern, names):
            return family + (_nearest_variant(tensors, variants) if variants else "")
    return ""


def _nearest_variant(tensors: Mapping[str, torch.Tensor], variants: str) -> str:
    from edgewise.exporter.timm_arch import import_timm

    try:
        timm = import_timm()
    except MissingExtraError:
        return ""
    shapes = {key.removeprefix("module."): tuple(tensor.shape) for key, tensor in tensors.items()}
    best, overlap = "", _MIN_OVERLAP
    candidates = sorted(timm.list_models(variants), key=lambda name: (len(name), name))
    for name in candidates[:_MAX_TRIED]:
        with torch.device("meta"):
            own = {key: tuple(tensor.shape) for key, tensor in timm.create_model(name).state_dict().items()}
        share = len(own.items() & shapes.items()) / max(len(own), len(shapes))
        if share > overlap:
            best, overlap = name, share
    return f", nearest --arch timm:{best} ({overlap:.0%} of its tensors)" if best else ""
