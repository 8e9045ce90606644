"""``hf:DIR``: a network of Hugging Face transformers in a local folder. Nothing is fetched, no code in the folder runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edgewise.exporter.architecture import Architecture, build
from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.quiet import quiet
from edgewise.exporter.torch_source import TorchSource, digest_of
from edgewise.exporter.torchvision_schemas import make_torchvision_importable
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec

_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
# Attention as plain matrix products: the fused form gives the same numbers, and a graph with checks for NaN.
_PLAIN = {"attn_implementation": "eager"}


def build_hf(folder: str, arguments: Mapping[str, Any]) -> Architecture:
    """Build the architecture of a folder's ``config.json``, without weights.

    Raises:
        ExportError: no configuration there, or one that transformers does not know.
        MissingExtraError: transformers is not installed.
    """
    config, others = _config(folder, arguments)
    from transformers import AutoModel

    make: Any = AutoModel.from_config
    module = build(make, f"hf:{folder}", {"config": config, **_PLAIN, **others})
    return Architecture(module, default_inputs(module))


def open_hf(folder: Path, arguments: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> TorchSource:
    """Open a folder with its own weights.

    Raises:
        ExportError: no configuration or weights there, or weights that do not fit.
        MissingExtraError: transformers is not installed.
    """
    config, others = _config(str(folder), arguments)
    from transformers import AutoModel

    with quiet():
        try:
            module, info = AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True, **_PLAIN, **others
            )
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise ExportError(
                "cannot load the weights",
                where=f"hf:{folder}",
                found=first_line(error),
                expected="model.safetensors or pytorch_model.bin that fits config.json",
                fix="Copy the whole folder again",
            ) from error
    facts: dict[str, Any] = {"arch": type(module).__name__, "tensors": len(module.state_dict())}
    _refuse_random(sorted(info["missing_keys"]), folder)
    if info["unexpected_keys"]:
        facts["left_out"] = sorted({key.split(".", 1)[0] for key in info["unexpected_keys"]})
    return as_source(module.eval(), digest_of(module.state_dict()), inputs or default_inputs(module), facts)


def as_source(module: torch.nn.Module, sha256: str, inputs: Sequence[TensorSpec], facts: dict[str, Any]) -> TorchSource:
    """A transformers module as a source: token ids stay below the vocabulary's size, encoders get a plain mask."""
    config: Any = module.config
    bounds = {
        "input_ids": getattr(config, "vocab_size", 2),
        "token_type_ids": getattr(config, "type_vocab_size", 0) or 1,
    }
    source = TorchSource("state_dict", sha256, list(inputs), facts, module, bounds=bounds)
    computed: Any = source.module
    if _plain_mask_holds(source):
        facts["mask"] = "expanded before the first layer"
        source.tracing = lambda _: _plain_mask(computed)
    return source


def default_inputs(module: torch.nn.Module) -> tuple[TensorSpec, ...]:
    """Token inputs with the dims ``batch`` and ``sequence``, or one image; none when the module wants something else."""
    config: Any = module.config
    known = inspect.signature(module.forward).parameters
    if getattr(module, "main_input_name", "") == "input_ids":
        names = [name for name in _TOKENS if name in known]
        if not getattr(config, "type_vocab_size", 0):
            names = [name for name in names if name != "token_type_ids"]
        return tuple(TensorSpec(name, "int64", ("batch", "sequence")) for name in names)
    size = getattr(config, "image_size", None)
    if getattr(module, "main_input_name", "") == "pixel_values" and size:
        height, width = (size, size) if isinstance(size, int) else size
        return (TensorSpec("pixel_values", "float32", (1, getattr(config, "num_channels", 3), height, width)),)
    return ()


def _config(folder: str, arguments: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configuration with the arguments that are its own, and those left for the model."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ExportError(
            "not a folder of Hugging Face",
            where=f"hf:{folder}",
            found="no config.json" if Path(folder).is_dir() else "no such folder",
            expected="a local folder with config.json and weights",
            fix="Nothing is downloaded: fetch the folder first (huggingface-cli download NAME --local-dir DIR)",
        )
    make_torchvision_importable()
    with needs("hf"):
        from transformers import AutoConfig
    with quiet():
        try:
            config, others = AutoConfig.from_pretrained(
                folder, local_files_only=True, return_unused_kwargs=True, **arguments
            )
        except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
            raise ExportError(
                "cannot read the configuration",
                where=str(file),
                found=first_line(error),
                expected="a model_type that this transformers knows",
                fix="Update transformers, or copy config.json again",
            ) from error
    config.use_cache = False  # a cache is state; the exported network has none
    return config, others


def _refuse_random(missing: list[str], folder: Path) -> None:
    if missing:
        raise ExportError(
            "the weights do not fit the architecture",
            where=f"hf:{folder}",
            found=f"{len(missing)} missing ({', '.join(missing[:3])}{' …' if len(missing) > 3 else ''})",
            expected="a weight for each tensor; none is made up",
            fix="Pass what leaves that part out (such as --arch-args add_pooling_layer=false), or copy the whole folder",
        )


@contextmanager
def _plain_mask(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """While it lasts, an encoder gets its mask as what is added to the scores: [batch, 1, 1, sequence]."""

    def expand(_: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        mask = kwargs["attention_mask"]
        hidden = (1.0 - mask[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        return args, kwargs | {"attention_mask": hidden}

    handle = module.register_forward_pre_hook(expand, with_kwargs=True)
    try:
        yield module
    finally:
        handle.remove()


def _plain_mask_holds(source: TorchSource) -> bool:
    """Whether the network computes the same with the plain mask: tried, on a batch whose second row is half hidden."""
    names = [spec.name for spec in source.inputs]
    module = source.module
    if "attention_mask" not in names or set(names) - set(_TOKENS) or not isinstance(module, torch.nn.Module):
        return False
    tensors = {name: torch.ones(2, 8, dtype=torch.int64) for name in names}
    tensors["input_ids"] = torch.arange(16).reshape(2, 8) % source.bounds["input_ids"]
    tensors["attention_mask"][1, 4:] = 0
    if "token_type_ids" in tensors:
        tensors["token_type_ids"].zero_()
    with torch.no_grad(), quiet():
        want = module(**tensors)[0]
        try:
            with _plain_mask(module):
                have = module(**tensors)[0]
        except (RuntimeError, ValueError, IndexError):  # it works its mask out in another way
            return False
    return bool(torch.allclose(want, have, rtol=1e-4, atol=1e-5))
