"""What each verb prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewise.cli.layout import PARITY, facts, parity_rows, table
from edgewise.numbers import count, milliseconds, percent, score, size, spec, sqnr, told_proof

if TYPE_CHECKING:
    from rich.console import Console

Result = dict[str, Any]
_MOST_ROWS = 25


def show_export(result: Result, console: Console) -> None:
    """Where the ONNX lies, its interface and the parity."""
    facts(console, [("written", result["output"]), *_interface(result)])
    table(console, "Parity with the source", PARITY, parity_rows(result["parity"]["outputs"]), right=5)
    _warnings(console, result["report"].get("warnings", []))


def show_prune(result: Result, console: Console) -> None:
    """Density per layer, and what was left alone and why."""
    report = result["report"]
    reached = f"{percent(report['sparsity'])} of all weights, {percent(report['asked'])} asked for in the layers below"
    how = (
        ("pattern", report["pattern"]),
        ("criterion", report["criterion"]),
        ("densities", report["densities"]),
        ("samples", report.get("samples")),
    )
    facts(console, [("written", result["output"]), *how, ("removed", reached)])
    layers = [(entry["name"], entry["op"], percent(entry["density"])) for entry in report["layers"]]
    table(console, "Layers", ("layer", "op", "density"), layers, right=1)
    refused = [(entry["node"], entry["op"], entry["reason"]) for entry in report["refused"]]
    table(console, "Left alone", ("node", "op", "why"), refused)
    table(console, "What it changed", PARITY, parity_rows(result.get("parity", [])), right=5)


def show_quantize(result: Result, console: Console) -> None:
    """How many layers became integers, and what stays in float and why."""
    report = result["report"]
    facts(
        console,
        [
            ("written", result["output"]),
            ("form", f"{report['scheme']} for {result['target']}"),
            ("calibrated", f"{report['samples']} samples of {report['data']['source']}, {report['method']}"),
            ("quantized", f"{len(report['layers'])} layers"),
        ],
    )
    table(
        console,
        "Kept in float",
        ("node", "op", "why"),
        [(e["node"], e["op"], e["reason"]) for e in report["kept_float"]],
    )
    costs = [
        (e["name"], e["op"], e["weights"], "exact" if e["sqnr_db"] is None else f"{e['sqnr_db']:.1f} dB")
        for e in report.get("sensitivity", [])
    ]
    table(console, "What each layer costs alone", ("layer", "op", "weights", "outputs, SQNR"), costs, right=2)
    if budget := report.get("budget"):
        spent = f"{size(budget['weight_bytes'])} of {size(budget['max_bytes'])}"
        facts(console, [("weights", spent), ("in 8 bits", ", ".join(budget["widened"]) or "none")])
    if search := report.get("search"):
        tried = [(e.get("wide", 0), e.get("float", 0), f"{e['metric']:.4f}") for e in search["trials"]]
        title = f"What was tried; the float network has {search['float_metric']:.4f}"
        table(console, title, ("layers put to 8 bits", "layers put to float", "metric"), tried, right=3)
    _warnings(console, report.get("notes", []))


def show_build(result: Result, console: Console) -> None:
    """The bundle, how much the target takes, and the engine against its ONNX."""
    facts(console, [("written", result["bundle"]), *_engine(result), ("engine's size", size(result["size_bytes"]))])
    _refused(console, result["support"])
    _parity(console, result["parity"])
    _warnings(console, result["engine"]["notes"])


def show_autotune(result: Result, console: Console) -> None:
    """What was tried, and what was kept."""
    facts(console, [("written", result["bundle"]), ("chosen", result["chosen"]), ("remembered in", result["memory"])])
    rows = [
        (e["placement"], milliseconds(e.get("median_ms")), percent(e["accuracy"]), e["refused"] or "")
        for e in result["candidates"]
    ]
    table(console, "Tried", ("placement", "median", "accuracy", "refused by"), rows, right=2)
    times = [(p, milliseconds(t.get("float16")), milliseconds(t.get("int8"))) for p, t in result["patterns"].items()]
    table(console, "By pattern", ("pattern", "float16", "int8"), times, right=2)


def show_verify(result: Result, console: Console) -> None:
    """The verdict, the outputs and, where asked for, the layers."""
    verdict = "the same" if result["parity"]["passed"] else "not the same"
    facts(console, [("verdict", verdict), ("run by", result["how"]), ("against", result["against"])])
    table(console, "Parity", PARITY, parity_rows(result["parity"]["outputs"]), right=5)
    for name, verdict in result.get("functions", {}).items():
        table(console, f"Function {name!r}", PARITY, parity_rows(verdict["outputs"]), right=5)
    layers = result.get("layers", [])
    table(console, "Layers", ("layer", "op", "SQNR"), [(e["name"], e["op"], sqnr(e)) for e in layers], right=1)
    if layers:
        first = result["first_diverging"]
        limit = f"{result['layer_threshold_db']:g} dB"
        text = f"{first['name']} ({first['op']}), {sqnr(first)}" if first else f"none below {limit}"
        facts(console, [("first to diverge", text)])


def show_profile(result: Result, console: Console) -> None:
    """Times and memory; layers where they were timed."""
    latency = result["latency_ms"]
    facts(
        console,
        [
            ("device", result.get("reached")),
            ("median", milliseconds(latency["median"])),
            ("95 % interval", " to ".join(str(milliseconds(end)) for end in latency.get("median_interval") or ())),
            ("min / p90 / p99", " / ".join(str(milliseconds(latency[key])) for key in ("min", "p90", "p99"))),
            ("of it on the GPU", _phases(result.get("phases_ms"))),
            ("first run", milliseconds(result["first_run_ms"])),
            ("load", milliseconds(result["load_ms"])),
            ("cold start", _cold(result.get("cold"))),
            ("peak memory", size(result["peak_memory_bytes"])),
            ("threads", result["threads"] or "all cores"),
            ("energy", _energy(result)),
        ],
    )
    rows = [
        (
            e["name"],
            e["op"],
            e["unit"],
            milliseconds(e["median_ms"]),
            percent(e.get("share")),
            percent(e.get("of_attainable")),
        )
        for e in sorted(result.get("layers") or [], key=lambda entry: -entry["median_ms"])[:_MOST_ROWS]
    ]
    table(
        console,
        "Outputs there against the reference",
        PARITY,
        parity_rows((result.get("parity") or {}).get("outputs", [])),
        right=5,
    )
    counts = [(entry["threads"], milliseconds(entry["median_ms"])) for entry in result.get("thread_sweep", [])]
    table(console, "By number of threads", ("threads", "median"), counts, right=1)
    levels = [
        (e["contexts"], f"{e['throughput_per_s']:.1f} / s", milliseconds(e["median_ms"]), milliseconds(e["p99_ms"]))
        for e in result.get("concurrency_sweep") or []
    ]
    table(console, "By number of contexts at once", ("contexts", "throughput", "median", "p99"), levels, right=3)
    table(
        console,
        f"Slowest layers (up to {_MOST_ROWS})",
        ("layer", "op", "unit", "time", "share", "of attainable"),
        rows,
        right=3,
    )
    _warnings(console, result["warnings"])


def _phases(medians: dict[str, float] | None) -> str | None:
    """The parts of a run, in their order."""
    return ", ".join(f"{name.replace('_', ' ')} {milliseconds(took)}" for name, took in (medians or {}).items()) or None


def _cold(start: dict[str, Any] | None) -> str | None:
    """Load and first run, and what became of the page cache."""
    if start is None:
        return None
    return f"load {milliseconds(start['load_ms'])}, first run {milliseconds(start['first_run_ms'])} (page cache {start['page_cache']})"


def show_pair(result: Result, console: Console) -> None:
    """Both medians, and what can be said of their ratio."""
    rows = [(name, result[name]["path"], milliseconds(result[name]["latency_ms"]["median"])) for name in ("a", "b")]
    table(console, "Measured in turns", ("", "bundle", "median"), rows, right=1)
    ratio = result["ratio"]
    told = f"b takes {ratio['median']:.3f} times as long as a"
    if ratio["low"] is not None:
        told += f" (95 %: {ratio['low']:.3f} to {ratio['high']:.3f})"
    console.print(told + ("" if result["differs"] else ": no difference that can be told from chance"))


def show_eval(result: Result, console: Console) -> None:
    """The value, and the drop where there is something to compare with."""
    source = result.get("source_value")
    metric = result["metric"]
    facts(
        console,
        [
            (metric, score(metric, result["value"])),
            ("source", None if source is None else score(metric, source)),
            ("drop", None if source is None else score(metric, source - result["value"])),
            ("samples", result["n"]),
            ("run by", result["how"]),
        ],
    )


def show_inspect(result: Result, console: Console) -> None:
    """Everything that is known of a network or bundle."""
    network = result.get("network") or {}
    assumed = ", ".join(f"{dim}={value}" for dim, value in network.get("macs_assumed", {}).items())
    facts(
        console,
        [
            ("kind", result["kind"]),
            *_interface(result),
            ("parameters", count(network.get("parameters"))),
            ("MACs", f"{count(network.get('macs'))}{f' ({assumed} assumed)' if assumed else ''}"),
            ("MACs unknown", ", ".join(network.get("macs_unknown", []))),
            (
                "weights",
                ", ".join(f"{dtype} {count(number)}" for dtype, number in network.get("weight_dtypes", {}).items()),
            ),
            ("opset", network.get("opset")),
        ],
    )
    table(console, "Operators", ("op", "count"), network.get("ops", {}).items(), right=1)
    _sparsity(console, result.get("sparsity"))
    if result["kind"] == "bundle":
        _bundle(console, result)
    for name, entry in result.get("targets", {}).items():
        facts(console, [(f"target {name}", f"{entry['taken']} of {entry['total']} nodes on {entry['device']}")])
        _refused(console, entry, name)


def show_report(result: Result, console: Console) -> None:
    """Where the page lies."""
    facts(console, [("written", result["output"]), ("bundles", len(result["bundles"]))])


def show_signature(result: Result, console: Console) -> None:
    """Whose signature it is, and where it lies when it was made."""
    facts(
        console,
        [
            ("bundle", result["bundle"]["name"]),
            ("signed by", result["public_key"]),
            ("written", result.get("signature")),
        ],
    )


def show_sweep(result: Result, console: Console) -> None:
    """A row per job, with the median of the sweep that it is held against."""
    against = f"sweep {result['against']['sweep']} in {result['against']['store']}" if result["against"] else None
    facts(
        console,
        [("written", result["store"]), ("sweep", result["sweep"]), ("against", against), ("report", result["report"])],
    )
    rows = [
        (
            row["recipe"], row["device"], row["target"], None if row["median_ms"] is None else milliseconds(row["median_ms"]),
            None if row["before_ms"] is None else milliseconds(row["before_ms"]),
            None if row["change"] is None else f"{row['change']:+.1%}",
            row["error"] or ("slower" if row["regressed"] else "done"),
        )
        for row in result["rows"]
    ]  # fmt: skip
    table(console, "Jobs", ("recipe", "device", "target", "median", "before", "change", "outcome"), rows)


def show_pack(result: Result, console: Console) -> None:
    """What was written, and how to compile the example."""
    files = [(name, size(count)) for name, count in result["files"].items()]
    facts(console, [("written", result["output"]), ("for", result["triple"])])
    table(console, "Files", ("file", "size"), files, right=1)
    facts(console, [("compile", f"cd {result['output']} && {result['command']}")])


def show_devices(result: Result, console: Console) -> None:
    """Targets, profiles and this machine."""
    targets = [(t["name"], ", ".join(t["schemes"]), t["default_device"], t["summary"]) for t in result["targets"]]
    table(console, "Targets", ("target", "schemes", "default device", "what"), targets)
    profiles = [(p["name"], ", ".join(p["targets"]), p["summary"]) for p in result["profiles"]]
    table(console, "Device profiles", ("device", "targets", "what"), profiles)
    console.print("\nReachable", style="bold")
    for machine in result["reachable"]:
        shown = {**machine, "memory_bytes": size(machine.get("memory_bytes"))}
        facts(console, [(key.removesuffix("_bytes"), _flat(value) if value else None) for key, value in shown.items()])


def show_convert(result: Result, console: Console) -> None:
    """One row per target, what went wrong, and where everything lies."""
    rows = [
        (
            entry["target"],
            entry["device"],
            "ok" if entry["exit_code"] == 0 else "FAILED",
            _worst(entry.get("parity")),
            *_accuracy(entry.get("accuracy") or {}),
            milliseconds(entry.get("profile", {}).get("latency_ms", {}).get("median")),
            size(entry.get("size_bytes")),
            entry.get("bundle") or entry.get("model"),
        )
        for entry in result["targets"]
    ]
    head = ("target", "device", "", "SQNR to source", "accuracy", "of source", "median", "engine", "where")
    table(console, result["name"], head, rows)
    for entry in result["targets"]:
        name, parity, profile = entry["target"], entry.get("parity") or {}, entry.get("profile") or {}
        facts(
            console,
            [
                (f"{name}: checked by", parity.get("how")),
                (f"{name}: not checked", parity.get("skipped")),
                (f"{name}: not profiled", profile.get("skipped")),
                *(
                    (f"{name}: note", note)
                    for note in [*parity.get("warnings", []), *entry.get("notes", []), *profile.get("warnings", [])]
                ),
                *((f"{name}: FAILED", error["message"]) for error in entry["errors"]),
            ],
        )
    console.print()
    facts(console, [("report", result["report"]), ("ONNX", result["model"]), ("everything", result["output"])])


def _accuracy(accuracy: Result) -> tuple[str | None, str | None]:
    metric = str(accuracy.get("metric"))
    values = (accuracy.get("value"), accuracy.get("source_value"))
    own, source = (None if value is None else score(metric, value) for value in values)
    return own, source


def _energy(result: Result) -> str | None:
    told = result["energy"]
    if told is None:
        return f"not available: {result['energy_reason']}" if result.get("energy_reason") else None
    return f"{told['joules_per_inference'] * 1e3:.3g} mJ per inference, {told['mean_w']:.3g} W above {told['idle_w']:.3g} W idle ({told['method']})"


def _worst(parity: Result | None) -> str | None:
    outputs = (parity or {}).get("outputs")
    if not outputs:
        return None
    return sqnr(
        min(
            outputs,
            key=lambda entry: (entry["exact"], entry["sqnr_db"] if entry["sqnr_db"] is not None else float("-inf")),
        )
    )


def _interface(result: Result) -> list[tuple[str, Any]]:
    return [
        *(("input", spec(entry)) for entry in result["inputs"]),
        *(("output", spec(entry)) for entry in result["outputs"]),
    ]


def _engine(result: Result) -> list[tuple[str, Any]]:
    support = result.get("support") or {}
    taken = f"{support['taken']} of {support['total']} nodes" if support else None
    return [("target", f"{result['target']} on {result['device']}"), ("taken", taken)]


def _bundle(console: Console, result: Result) -> None:
    facts(
        console,
        [
            *_engine(result),
            ("engine's size", size(result["size_bytes"])),
            ("memory", _memory(result["memory"])),
            ("source", _flat(result["source"])),
        ],
    )
    _parity(console, result["parity"] or {})
    facts(console, [(f"engine: {name}", text) for name, text in told_proof(result["engine"].get("proof", {}))])
    _warnings(console, result["engine"].get("notes", []))


def _memory(memory: Result | None) -> str | None:
    if not memory:
        return None
    if "not_known" in memory:
        return f"not known: {memory['not_known']}"
    arena, least = memory["arena_bytes"], memory["least_arena_bytes"]
    above = f", {percent(arena / least - 1)} above the most that is alive at once" if least else ""
    return f"{size(memory['weights_bytes'])} of weights, {size(arena)} of activations{above}"


def _parity(console: Console, parity: Result) -> None:
    told = [
        ("checked by", parity.get("how")),
        ("reference", parity.get("reference")),
        ("not checked", parity.get("skipped")),
    ]
    facts(console, told)
    for entry, title in (
        (parity.get("against_onnx"), "Engine against its ONNX"),
        (parity, "Engine against the source"),
        *((entry, f"Function {name!r} against its ONNX") for name, entry in parity.get("functions", {}).items()),
    ):
        table(console, title, PARITY, parity_rows((entry or {}).get("outputs", [])), right=5)
    _warnings(console, parity.get("warnings", []))


def _refused(console: Console, support: Result, target: str = "the target") -> None:
    rows = [(entry["node"], entry["op"], entry["reason"]) for entry in support["refused"][:_MOST_ROWS]]
    table(console, f"Not taken by {target} itself ({len(support['refused'])})", ("node", "op", "why"), rows)


def _sparsity(console: Console, sparsity: Result | None) -> None:
    """Layers whose weights are short or sparse; plain float32 ones are counted in the head."""
    layers = [layer for layer in (sparsity or {}).get("layers", []) if layer["pattern"] or layer["bits"] != 32]
    rows = [
        (
            *(layer["name"], layer["op"], layer["pattern"] or "dense", percent(1 - layer["density"])),
            *(str(layer["bits"]), size(layer["bytes"])),
        )
        for layer in layers
    ]
    columns = ("layer", "op", "pattern", "zeros", "bits", "size")
    table(console, f"Sparse and short weights ({len(rows)} layers)", columns, rows[:_MOST_ROWS], right=3)


def _warnings(console: Console, texts: list[str]) -> None:
    for text in texts:
        console.print(f"note: {text}")


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items() if inner not in (None, {}, []))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
