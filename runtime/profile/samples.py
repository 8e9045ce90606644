"""What a bundle is measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgewise.runtime.bundle import REFERENCE, load_reference
from edgewise.runtime.data import random_data
from edgewise.runtime.model import Model


def samples_of(model: Model, file: str | None) -> list[dict[str, np.ndarray]]:
    """The samples in a file, else the bundle's own, else random ones."""
    if file is not None:
        return load_reference(Path(file))[0]
    stored = REFERENCE in model.bundle.manifest["files"]
    if (stored or model.function) and (own := model.bundle.reference(model.function)[0]):
        return own
    return [sample.inputs for sample in random_data(model.inputs, 1)]
