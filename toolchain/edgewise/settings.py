"""What each stage can be told: the tables of a recipe. docs/recipe.md describes every key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STAGES = ("export", "prune", "quantize", "build", "verify", "profile")


@dataclass(frozen=True)
class ExportSettings:
    """``opset`` None: the lowest from 18 up that every target takes. ``min_sqnr`` in dB, against the source network.

    ``data`` is DATA to compare on; None: the calibration data, else seeded random inputs.
    """

    opset: int | None = None
    min_sqnr: float = 60.0
    data: str | None = None
    fuse: bool = True
    drop_outputs: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class PruneSettings:
    """``sparsity`` is the fraction of weights to remove, ``skip`` names layers to leave alone.

    ``calib`` is DATA for criteria and densities that look at what the network computes; None: the quantize stage's.
    ``costs`` is a JSON table of what layers take at a density. ``reconstruct`` trains what stays on the same samples.
    ``tables``: embeddings, too. ``multiple``: of what stays of a tensor's channels, where tensors shrink.
    """

    pattern: str
    sparsity: float
    skip: tuple[str, ...] = ()
    criterion: str = "magnitude"
    calib: str | None = None
    samples: int = 512
    densities: str = "uniform"
    costs: str | None = None
    reconstruct: bool = False
    tables: bool = False
    multiple: int = 1


@dataclass(frozen=True)
class QuantizeSettings:
    """``calib`` is DATA; random data instead of it must be allowed by name. ``wide`` names layers that get 8 bits.

    With ``max_drop`` (a fraction) layers are put back until ``metric`` falls by no more on ``judge``, DATA apart from
    ``calib`` (labelled, but for ``agreement``). With ``max_bytes`` as many layers get 8 bits as fit (mixed precision).
    Else, below ``floor`` (dB; None: the target's, 0: none), layers of at most ``float_share`` of the multiply-accumulates go back.
    """

    scheme: str = "int8"
    method: str = "mse"
    rounding: str = "auto"
    partition: str = "parts"
    relu_mlps: bool = False
    calib: str | None = None
    samples: int | None = None
    keep_float: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    analyze: bool = False
    sensitivity: str = "sqnr"
    correct_biases: bool = False
    search_scales: bool = False
    shift_biases: bool = False
    split_channels: bool = False
    allow_random_calibration: bool = False
    seed: int = 0
    max_drop: float | None = None
    judge: str | None = None
    metric: str = "top1"
    max_bytes: int | None = None
    floor: float | None = None
    float_share: float = 0.15


@dataclass(frozen=True)
class BuildSettings:
    """``options`` go to the target as they are; it refuses those it does not know."""

    require_full_delegation: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifySettings:
    """``min_sqnr`` None: 40 dB for a float engine, 10 dB for a quantized one, no gate for a pruned one.

    ``data`` with ``metric`` measures accuracy of the engine and of the source, unless that is ``none``: then outputs are compared on it
    alone. ``max_drop`` is a fraction, as is ``min_accuracy``.
    """

    min_sqnr: float | None = None
    data: str | None = None
    metric: str = "top1"
    limit: int | None = None
    min_accuracy: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True)
class ProfileSettings:
    """``threads`` 0: all cores. ``function``: of an engine with several. ``max_latency_ms`` gates the median.

    ``duration_s`` above 0: sustained, for so many seconds. ``cold``: a start with the page cache dropped too.
    ``concurrency``: numbers of contexts to run at once. ``within``: a share of the median; measure until its 95 % interval lies within.
    """

    device: str = "local"
    function: str | None = None
    threads: int = 0
    per_layer: bool = True
    runs: int | None = None
    warmup: int | None = None
    max_latency_ms: float | None = None
    duration_s: float = 0.0
    cold: bool = False
    concurrency: tuple[int, ...] = ()
    within: float | None = None


@dataclass(frozen=True)
class TargetChoice:
    """A target, the profile of the device (None: the target's default), and stage keys that hold for this target alone."""

    target: str
    device: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
