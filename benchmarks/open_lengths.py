"""Transformers with open batch and sequence: which libedgewise takes whole, and whether it computes what ONNX Runtime does.

    python benchmarks/open_lengths.py                 all of them, a row each
    python benchmarks/open_lengths.py Bloom Qwen3     some

Each is one small layer with seeded random weights, built from its configuration (nothing is fetched), exported as `edgewise export DIR` does, and run on four
batches: the least SQNR of all outputs counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != HERE]
_WORDS = 50
_SMALL = {
    "vocab_size": _WORDS, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GROUPED = _SMALL | {"num_key_value_heads": 1}
_GPT = {"vocab_size": _WORDS, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "Albert": _SMALL | {"embedding_size": 16},
    "Bert": _SMALL,
    "Bloom": _GPT | {"hidden_size": 32},
    "DebertaV2": _SMALL
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "max_relative_positions": 16},
    "DistilBert": {"vocab_size": _WORDS, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64},
    "Electra": _SMALL | {"embedding_size": 16},
    "GPT2": _GPT | {"n_embd": 32},
    "GPTNeoX": _SMALL,
    "Gemma3Text": _GROUPED | {"head_dim": 16, "sliding_window": 4, "layer_types": ["sliding_attention"]},
    "Llama": _GROUPED,
    "MPNet": _SMALL,
    "Mistral": _GROUPED | {"sliding_window": 4},
    "ModernBert": _SMALL | {"cls_token_id": 1, "sep_token_id": 2},
    "OPT": _SMALL | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "Olmo2": _SMALL,
    "Phi": _SMALL,
    "Phi3": _SMALL,
    "Qwen2": _GROUPED,
    "Qwen3": _GROUPED | {"head_dim": 16},
    "Roberta": _SMALL,
    "SmolLM3": _GROUPED,
    "T5": {"vocab_size": _WORDS, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    "XLMRoberta": _SMALL,
}
_SHAPES = ((1, 7), (2, 5), (3, 1), (1, 19))
Arrays = dict[str, np.ndarray]


def exported(name: str) -> Any:
    """The network's ONNX graph, its batch and sequence open."""
    import torch

    from edgewise.exporter import export
    from edgewise.exporter.torchvision_schemas import make_torchvision_importable

    make_torchvision_importable()
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**NETWORKS[name])
    network = transformers.T5EncoderModel(config) if name == "T5" else transformers.AutoModel.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        if name == "T5":  # AutoModel would build the decoder too
            from edgewise.exporter.hf_arch import as_source, default_inputs

            return export(as_source(network.eval(), "", default_inputs(network), {}))
        return export(f"hf:{folder}")


def samples(made: Any) -> Iterator[Arrays]:
    """Words of four shapes; the last ones of the first row are masked."""
    rng = np.random.default_rng(0)
    for shape in _SHAPES:
        arrays = {
            spec.name: np.ones(shape, np.int64) if "mask" in spec.name else np.zeros(shape, np.int64)
            for spec in made.inputs
        }
        arrays["input_ids"] = rng.integers(0, _WORDS, shape)
        if shape[1] > 1 and "attention_mask" in arrays:
            arrays["attention_mask"][0, -1:] = 0
        yield arrays


def measure(name: str) -> str:
    """The row's cells behind the name: operators, and the least SQNR in dB, or why it is not taken."""
    from edgewise.runtime import _native  # type: ignore[attr-defined]
    from edgewise.runtime.compare import compare_outputs
    from edgewise.runtime.onnx_runner import OnnxRunner
    from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
    from edgewise.targets.cpu.native.engine_file import encode
    from edgewise.targets.cpu.native.plan import Isa

    made = exported(name)
    try:
        plan = compile_model(made.model, Isa.GENERIC).plan
    except NotTakenError as error:
        return f"| – | not taken: {error} |"
    runner, least = OnnxRunner(made.model), float("inf")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.engine"
        path.write_bytes(encode(plan))
        context = _native.Context(_native.Engine(str(path)), threads=1)
        for arrays in samples(made):
            outputs = context.run([arrays[tensor.name] for tensor in plan.inputs])
            have = {tensor.name: array for tensor, array in zip(plan.outputs, outputs, strict=True)}
            least = min([least, *(one.sqnr_db for one in compare_outputs([runner.run(arrays)], [have]))])
    return f"| {len(plan.ops)} | {least:.1f} |"


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="*", help=f"of {', '.join(NETWORKS)}")
    names = parser.parse_args().network or list(NETWORKS)
    print("| network | operators | least SQNR, dB |\n|---|---|---|")
    for name in names:
        print(f"| {name} {measure(name)}", flush=True)


if __name__ == "__main__":
    main()
