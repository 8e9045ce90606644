"""``edgewise profile``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import keep, whole_numbers
from edgewise.cli.show import show_pair, show_profile
from edgewise.cli.work import perform
from edgewise.runtime.progress import Progress

Other = Annotated[
    str | None,
    typer.Argument(
        metavar="[OTHER]", help="A second bundle: measure the two in turns and say which is faster.", show_default=False
    ),
]
Function = Annotated[
    str | None, typer.Option("--function", metavar="NAME", help="Of an engine with several; else the network itself.")
]
PerLayer = Annotated[bool, typer.Option("--per-layer", help="Time every layer, and say which unit ran it.")]
Runs = Annotated[
    int | None, typer.Option("--runs", metavar="N", min=1, help="Timed runs; by default as many as it takes.")
]
Warmup = Annotated[int | None, typer.Option("--warmup", metavar="N", min=0, help="Runs to throw away first.")]

Duration = Annotated[
    float,
    typer.Option("--duration", metavar="S", min=0, help="Measure for so many seconds: latency over time, for heat."),
]
ThreadSweep = Annotated[
    str | None,
    typer.Option("--thread-sweep", metavar="N,N,…", help="Measure with each of these numbers of threads too."),
]

Cold = Annotated[bool, typer.Option("--cold", help="Also time a start with the bundle's files out of the page cache.")]
ConcurrencySweep = Annotated[
    str | None,
    typer.Option(
        "--concurrency-sweep",
        metavar="N,N,…",
        help="Run so many contexts of the engine at once: throughput and latency.",
    ),
]
Within = Annotated[
    float | None,
    typer.Option(
        "--within", metavar="SHARE", help="Measure until the median's 95 % interval lies within: 0.01 is 1 %."
    ),
]


def run(
    bundle: o.BundlePath,
    other: Other = None,
    *,
    device: o.Where = "local",
    function: Function = None,
    threads: o.Threads = 0,
    per_layer: PerLayer = False,
    runs: Runs = None,
    warmup: Warmup = None,
    max_latency_ms: o.MaxLatency = None,
    duration: Duration = 0.0,
    thread_sweep: ThreadSweep = None,
    cold: Cold = False,
    concurrency_sweep: ConcurrencySweep = None,
    within: Within = None,
    output: o.ResultFile = None,
    as_json: o.Json = False,
) -> None:
    """Measure a bundle: load time, first run, the distribution of warm runs, memory, and layers; or two against each other."""
    from edgewise.verbs.profile import profile, profile_two

    if other is not None:
        options = {
            "function": function,
            "per_layer": per_layer,
            "warmup": warmup,
            "max_latency_ms": max_latency_ms,
            "duration": duration or None,
            "thread_sweep": thread_sweep,
            "cold": cold,
            "concurrency_sweep": concurrency_sweep,
            "within": within,
        }
        pair = partial(profile_two, bundle, other, device=device, threads=threads, rounds=runs, alone=options)
        perform(lambda progress: keep(pair(progress=progress), output), show_pair, as_json=as_json)
        return

    counts = whole_numbers(thread_sweep, "--thread-sweep")
    contexts = whole_numbers(concurrency_sweep, "--concurrency-sweep")

    def verb(progress: Progress) -> dict[str, Any]:
        result = profile(
            bundle, device=device, function=function, threads=threads, per_layer=per_layer, runs=runs, warmup=warmup,
            max_latency_ms=max_latency_ms, duration_s=duration, thread_sweep=counts, cold=cold, concurrency_sweep=contexts,
            within=within, progress=progress,
        )  # fmt: skip
        return keep(result, output)

    perform(verb, show_profile, as_json=as_json)
