"""From what was collected to what the template shows: numbers with units, rows, charts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgewise import numbers
from edgewise.page.collect import Collection, Entry
from edgewise.page.svg import Point, histogram, over_time, pareto, runs

_MOST_LAYERS = 24


@dataclass(frozen=True)
class Layer:
    """A row of the per-layer table; ``share`` of the whole, ``width`` against the slowest, both fractions; ``rate`` in GMAC/s."""

    name: str
    op: str
    unit: str
    median_ms: float
    share: float
    width: float
    kind: int
    rate: float | None


@dataclass(frozen=True)
class OpShare:
    """All layers of one operator together."""

    op: str
    median_ms: float
    share: float
    kind: int


def title(found: Collection) -> str:
    """The networks' names."""
    names = dict.fromkeys(
        str((e.manifest.get("source") or {}).get("file") or e.manifest.get("name")) for e in found.entries
    )
    return ", ".join(names) or "nothing was built"


def sources(found: Collection) -> list[dict[str, Any]]:
    """The networks that the bundles were made from, each once."""
    known = {str(source.get("sha256")): source for e in found.entries if (source := e.manifest.get("source"))}
    return list(known.values())


def median_ms(entry: Entry) -> float | None:
    """The median latency, where it was measured."""
    return entry.profile["latency_ms"]["median"] if entry.profile else None


def accuracy(entry: Entry) -> dict[str, Any] | None:
    """Metric, value, n and perhaps source_value: measured beside the bundle, else what its manifest records."""
    return entry.accuracy[-1] if entry.accuracy else entry.manifest.get("accuracy")


def accuracies(entry: Entry) -> list[dict[str, Any]]:
    """Everything that was measured, each with ``source_value`` (None where there is none)."""
    own = entry.manifest.get("accuracy")
    return [{"source_value": None, **result} for result in ([own] if own else []) + entry.accuracy]


def score(result: dict[str, Any], value: float | None = None) -> str:
    """A value of a result's metric; its own when none is given."""
    return numbers.score(result["metric"], result["value"] if value is None else value)


def checks(entry: Entry) -> list[dict[str, Any]]:
    """The tables of parity: of the build, and of later runs of ``edgewise verify``."""
    parity = entry.manifest.get("parity") or {}
    tables = []
    if "outputs" in parity:
        tables.append({**parity, "title": "Parity with the source"})
    if "against_onnx" in parity:
        tables.append(
            {**parity["against_onnx"], "how": parity.get("how", ""), "title": "Parity with the ONNX it was built from"}
        )
    tables += [{**r["parity"], "how": r["how"], "title": f"Verified against {r['against']}"} for r in entry.parity]
    return tables


def sparse_layers(entry: Entry) -> list[dict[str, Any]]:
    """Layers whose weights have zeros in a pattern, or many of them."""
    told = (entry.manifest.get("sparsity") or {}).get("layers") or []
    return [layer for layer in told if layer.get("pattern")]


def notes(entry: Entry) -> list[tuple[str, str]]:
    """What the build, the check and the measurement have to say, each sentence once, with its tone: info or warning."""
    parity, profile = entry.manifest.get("parity") or {}, entry.profile or {}
    said = [("info", note) for note in entry.manifest["engine"].get("notes", [])]
    said += [("warning", f"Not checked here: {parity['skipped']}")] if "skipped" in parity else []
    said += [("warning", str(warning)) for told in (parity, profile) for warning in told.get("warnings", [])]
    return list(dict.fromkeys(said))


def energy(profile: dict[str, Any]) -> str:
    """Per inference, or why it is not known."""
    value = profile.get("energy")
    if value is None:
        return f"not known: {profile.get('energy_reason') or 'not measured'}"
    if not isinstance(value, dict):
        return str(value)
    return f"{value['joules_per_inference'] * 1e3:.3g} mJ, {value['mean_w']:.3g} W above {value['idle_w']:.3g} W idle ({value['method']})"


def machine(profile: dict[str, Any]) -> list[tuple[str, str]]:
    """The machine that was measured on, as names and values; what it does not tell is left out."""
    device, clocks = profile.get("device") or {}, profile.get("clocks") or {}
    rows = [
        ("device", profile.get("reached")),
        ("processor", device.get("board") or device.get("cpu")),
        ("architecture", device.get("machine")),
        ("cores", device.get("cores_available")),
        ("threads", "all cores" if profile.get("threads") == 0 else profile.get("threads")),
        (
            "clock",
            f"{clocks['before_mhz']:.0f} MHz before, {clocks['after_mhz']:.0f} MHz after"
            if clocks.get("before_mhz") and clocks.get("after_mhz")
            else None,
        ),
        ("governor", profile.get("governor")),
        ("system", profile.get("os")),
        ("engine", " ".join(map(str, (profile.get("engine") or {}).values()))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def worst_parity(entry: Entry) -> dict[str, Any] | None:
    """The output that differs most from the source's."""
    outputs = (entry.manifest.get("parity") or {}).get("outputs")
    return min(outputs, key=_agreement) if outputs else None


def _agreement(parity: dict[str, Any]) -> float:
    if parity["exact"]:
        return float("inf")
    return float("-inf") if parity["sqnr_db"] is None else float(parity["sqnr_db"])


def scheme(entry: Entry) -> str:
    """What its numbers are: a scheme of quantization, or float; and whether weights were removed."""
    quantization, pruned = entry.manifest.get("quantization"), (entry.manifest.get("sparsity") or {}).get("prune")
    name = str(quantization["scheme"]) if quantization else "float"
    return f"{name}, {pruned['pattern']} sparse" if pruned else name


def verdict(entry: Entry) -> tuple[str, str]:
    """A word for the parity, and its tone: good, bad or unknown."""
    parity = entry.manifest.get("parity") or {}
    checks = [parity, parity.get("against_onnx", parity)]
    if "passed" not in parity:
        return "not checked here", "unknown"
    if not all(check["passed"] for check in checks):
        return "parity failed", "bad"
    return ("verified by a stand-in", "unknown") if parity.get("stand_in") else ("verified", "good")


def layers(entry: Entry) -> list[Layer]:
    """The slowest layers, slowest first."""
    told = sorted((entry.profile or {}).get("layers") or [], key=lambda layer: -layer["median_ms"])
    total = sum(layer["median_ms"] for layer in told) or 1.0
    slowest = told[0]["median_ms"] or 1.0 if told else 1.0
    kinds = {share.op: share.kind for share in op_shares(entry)}
    return [
        Layer(
            e["name"],
            e["op"],
            e["unit"],
            e["median_ms"],
            e["median_ms"] / total,
            e["median_ms"] / slowest,
            kinds[e["op"]],
            e.get("gmacs_per_s"),
        )
        for e in told[:_MOST_LAYERS]
    ]


def op_shares(entry: Entry) -> list[OpShare]:
    """Time by operator, the largest first; colours go by rank."""
    sums: dict[str, float] = defaultdict(float)
    for layer in (entry.profile or {}).get("layers") or []:
        sums[layer["op"]] += layer["median_ms"]
    total = sum(sums.values()) or 1.0
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return [OpShare(op, ms, ms / total, min(rank, 5)) for rank, (op, ms) in enumerate(ranked)]


def left_out(entry: Entry) -> int:
    """How many layers the table does not show."""
    return max(0, len((entry.profile or {}).get("layers") or []) - _MOST_LAYERS)


def latency_chart(entry: Entry) -> Markup:
    """The distribution of warm runs."""
    latency = (entry.profile or {})["latency_ms"]
    marks = [("median", latency["median"]), ("p90", latency["p90"]), ("p99", latency["p99"])]
    text = f"Histogram of {len(latency['samples'])} warm runs: median {latency['median']:.3f} ms, p99 {latency['p99']:.3f} ms"
    return histogram(latency["samples"], marks, label=text)


def runs_chart(entry: Entry) -> Markup:
    """The warm runs in order."""
    samples = (entry.profile or {})["latency_ms"]["samples"]
    return runs(samples, label=f"Latency of {len(samples)} warm runs in the order of measurement")


def series_chart(entry: Entry) -> Markup:
    """The medians of a sustained measurement over time."""
    series = (entry.profile or {})["series"]
    values = [point["median_ms"] for point in series]
    seconds = series[-1]["at_s"]
    label = f"Median latency over {seconds:.0f} s: {values[0]:.3f} ms at first, {values[-1]:.3f} ms at last"
    return over_time([point["at_s"] for point in series], values, label=label)


def trade_off(found: Collection) -> Markup | None:
    """Latency against accuracy where two verified bundles or more have both, else against size; None with fewer than two."""
    timed = [entry for entry in found.entries if median_ms(entry) is not None and verdict(entry)[1] == "good"]
    measured = [entry for entry in timed if accuracy(entry)]
    if len(measured) > 1:
        values = [(entry, (accuracy(entry) or {})["value"] * 100) for entry in measured]
        name = f"{(accuracy(measured[0]) or {})['metric']}, %"
        return _pareto(values, name, higher_is_better=True)
    if len(timed) > 1:
        return _pareto(
            [(entry, entry.size_bytes / 2**20) for entry in timed], "engine size, MiB", higher_is_better=False
        )
    return None


def _pareto(values: list[tuple[Entry, float]], y_name: str, *, higher_is_better: bool) -> Markup:
    targets = list(dict.fromkeys(entry.manifest["target"] for entry, _ in values))
    points = [
        Point(str(entry.manifest.get("name")), median_ms(entry) or 0.0, y, targets.index(entry.manifest["target"]))
        for entry, y in values
    ]
    spoken = "; ".join(f"{p.name}: {p.x:.3f} ms, {p.y:.4g}" for p in points)
    return pareto(
        points,
        x_name="median latency, ms",
        y_name=y_name,
        higher_is_better=higher_is_better,
        label=f"Latency against {y_name}. {spoken}",
    )
