"""For GPUs that TensorRT for RTX does not build for: everything that the device needs to build by itself."""

from __future__ import annotations

import hashlib
import json
from importlib import resources

from edgewise.runtime.onnx_file import to_bytes
from edgewise.targets.base import BuildRequest, BuildResult
from edgewise.targets.tensorrt.ahead import ONNX, float_notes, parse_or_refuse, prepare_request, quantized_products
from edgewise.targets.tensorrt.engine_layers import manifest_rows, planned_layers
from edgewise.targets.tensorrt.marking import give_out, marked_notes
from edgewise.targets.tensorrt.proof import asked_types
from edgewise.targets.tensorrt.settings import Settings
from edgewise.targets.tensorrt.sparse import check_sparse, find_masks
from edgewise.targets.tensorrt.vendor import version

BUILD_SETTINGS, SCRIPT = "build_settings.json", "build_on_device.py"
SCHEMA_VERSION = 1


def write_build_kit(request: BuildRequest, settings: Settings) -> BuildResult:
    """Write the strongly typed ``model.onnx``, ``build_settings.json`` and ``build_on_device.py``.

    Raises:
        TargetError: the parser (of TensorRT for RTX, which is that of TensorRT) refuses the graph.
    """
    sparse, sparse_notes = check_sparse(find_masks(request.model), settings.sparse)
    prepared = prepare_request(request, settings)
    marked = give_out(prepared.model, settings.marked)
    data = to_bytes(prepared.model, f"graph {prepared.model.graph.name!r}")
    parsed = parse_or_refuse(data, prepared.model)
    (request.folder / ONNX).write_bytes(data)
    asked = {
        "schema_version": SCHEMA_VERSION,
        "onnx": ONNX,
        "onnx_sha256": hashlib.sha256(data).hexdigest(),
        "sm": settings.sm,
        "precision": settings.precision,
        "products": {name: asked for name, (_, asked) in asked_types(prepared.model).items()},
        "quantized": bool(quantized_products(prepared.model)),
        "profiles": settings.profile,
        "marked": marked,
        "sparse": sparse,
        "tf32": settings.tf32,
        "workspace_bytes": settings.workspace_bytes,
        "timing_cache": settings.timing_cache,
        "dla_core": settings.dla_core,
        "gpu_fallback": settings.gpu_fallback,
        "version_compatible": settings.version_compatible,
        "hardware_compatible": settings.hardware_compatible,
    }
    (request.folder / BUILD_SETTINGS).write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    script = resources.files("edgewise.targets.tensorrt") / SCRIPT
    (request.folder / SCRIPT).write_bytes(script.read_bytes())
    ops = {node.name or "": node.op_type for node in prepared.model.graph}
    return BuildResult(
        kind="tensorrt",
        files=[ONNX, BUILD_SETTINGS, SCRIPT],
        versions={"tensorrt_rtx": version()},
        layers=manifest_rows(planned_layers(parsed.network), ops, "planned"),
        settings={
            "library": "tensorrt",
            "engine_built": False,
            "model": ONNX,
            **asked,
            "allow_other_precision": settings.allow_other_precision,
        },
        notes=[
            *settings.notes,
            *sparse_notes,
            *prepared.notes,
            *float_notes(prepared, settings),
            *marked_notes(settings.marked, marked),
            f"No engine yet: TensorRT for RTX does not build for SM{settings.sm}. Copy the bundle to the device and run "
            f"`python3 {SCRIPT}` there. The layers are those of the network definition, as the parser of TensorRT for RTX "
            "made it; the device's own TensorRT may refuse what this one takes.",
        ],
    )
