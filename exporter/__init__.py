"""PyTorch to ONNX that is verified against PyTorch."""

from typing import TYPE_CHECKING

from edgewise.runtime.extras import lazy_exports

if TYPE_CHECKING:
    from edgewise.exporter.errors import ExportError
    from edgewise.exporter.exporting import Exported, export
    from edgewise.exporter.opening import open_source
    from edgewise.exporter.source import Source

__all__ = ["ExportError", "Exported", "Source", "export", "open_source"]

__getattr__ = lazy_exports(
    {
        "ExportError": "edgewise.exporter.errors",
        "Exported": "edgewise.exporter.exporting",
        "Source": "edgewise.exporter.source",
        "export": "edgewise.exporter.exporting",
        "open_source": "edgewise.exporter.opening",
    },
    "export",
)
