"""What targets that are quantized one after the other save by sharing what was seen of activations: CPU seconds, alone and together.

    edgewise export squeezenet10_imagenet.pth --arch examples/imagenet/squeezenet.py:squeezenet10 --input image=f32[1,3,227,227] -o squeezenet.onnx
    python benchmarks/sharing.py squeezenet.onnx --calib imagenet_calib.zip --preprocess resize=none,crop=227,color=bgr,scale=1,mean=104:117:123

The graphs have to be the same bytes either way, or it ends with an error.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

# Packages look for optional ones by name (transformers for `kernels`); scripts beside this one must not answer.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

_TARGETS = {"x86-64-v3": "cpu", "x86-64-v4-vnni": "cpu", "iphone-15-pro": "coreml", "rtx-4070": "tensorrt"}


def measure(model: Path, calib: str, preprocess: str | None, together: bool) -> list[tuple[float, str]]:
    """Per target the CPU seconds of its int8 quantization, and the digest of the graph."""
    from edgewise.quantize import Observations, quantize
    from edgewise.runtime.onnx_file import to_bytes
    from edgewise.stages.inputs import find_data
    from edgewise.stages.network import read_network
    from edgewise.targets import find_device, find_target

    network, observations = read_network(model), Observations() if together else None
    rows = []
    for device, target in _TARGETS.items():
        spec = find_target(target).quantization("int8", find_device(device, target))
        data = find_data(calib, network.inputs, preprocess)
        start = time.process_time()
        made = quantize(network.model, spec, data, observations=observations)
        took_s = time.process_time() - start
        rows.append((took_s, hashlib.sha256(to_bytes(made.model, device)).hexdigest()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a float32 ONNX file")
    parser.add_argument("--calib", required=True, help="calibration samples, as for `edgewise quantize`")
    parser.add_argument("--preprocess", help="what to do with images")
    told = parser.parse_args()
    alone, together = (measure(told.model, told.calib, told.preprocess, shares) for shares in (False, True))
    print("device            alone, s  together, s")
    for device, one, other in zip(_TARGETS, alone, together, strict=True):
        print(f"{device:16} {one[0]:9.1f} {other[0]:12.1f}")
    print(f"{'all':16} {sum(row[0] for row in alone):9.1f} {sum(row[0] for row in together):12.1f}")
    if [row[1] for row in alone] != [row[1] for row in together]:
        sys.exit("the graphs differ")


if __name__ == "__main__":
    main()
