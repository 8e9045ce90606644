"""The report page: what it shows, what it escapes, and that a real browser renders it without a complaint."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import ToolchainError
from edgewise.page.collect import collect
from edgewise.page.render import render
from edgewise.runtime.bundle import create_bundle, open_bundle, save_reference
from edgewise.stages.profile import identify
from edgewise.verbs.report import report

EVIL = '<script>alert("x")</script>"><img src=x onerror=alert(1)>&amp;'


def parity(sqnr: float | None, name: str = "logits") -> dict[str, Any]:
    output = {
        "name": name, "max_abs_error": 0.0123, "sqnr_db": sqnr, "cosine": 0.998765, "argmax_agreement": 0.75, "samples": 4,
        "exact": False,
    }  # fmt: skip
    return {"min_sqnr_db": 10.0, "passed": True, "outputs": [output]}


def manifest(**over: Any) -> dict[str, Any]:
    spec = {"name": "image", "dtype": "float32", "shape": ["N", 3, 8, 8]}
    return {
        "source": {"file": "net.pth", "sha256": "ab" * 32, "kind": "state_dict", "facts": {}},
        "inputs": [spec],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["N", 5]}],
        "preprocess": {"scale": 255.0, "color": "rgb"},
        "target": "cpu",
        "device": "x86-64-v3",
        "network": {"ops": {"Conv": 3, "Relu": 2}, "parameters": 123456, "macs": 40813000},
        "quantization": {
            "scheme": "int8", "method": "entropy", "samples": 77, "data": {"source": "calib.zip", "random": False},
            "layers": [{"name": "conv1", "op": "Conv", "precision": "int8", "reason": ""}],
            "kept_float": [{"node": "softmax", "op": "Softmax", "reason": "small and sensitive"}],
        },
        "sparsity": {
            "prune": {"pattern": "2:4", "sparsity": 0.4321},
            "layers": [{"name": "fc", "op": "Gemm", "density": 0.5, "pattern": "2:4"}],
        },
        "support": {"taken": 4, "total": 5, "refused": [{"node": "n9", "op": "NonZero", "reason": "dynamic output"}]},
        "engine": {
            "kind": "null", "files": ["engine.bin"], "versions": {"maker": "3.2.1"}, "notes": ["softmax runs on the CPU"],
            "layers": [{"name": "conv1", "op": "Conv", "precision": "int8", "unit": "GPU"}], "settings": {},
        },
        "parity": {"how": "the engine itself", "stand_in": False, **parity(31.4), "against_onnx": parity(47.1)},
        "accuracy": {"metric": "top1", "value": 0.9154, "n": 4000, "source_value": 0.9178, "data": "test.zip", "how": "it"},
        "versions": {"edgewise": "0.1.0"},
        **over,
    }  # fmt: skip


def bundle(folder: Path, stem: str, *, size: int = 5000, **over: Any) -> Path:
    path = folder / f"{stem}.edge"
    with create_bundle(path) as (draft, made):
        made |= manifest(**over)
        made["name"] = over.get("name", stem)
        (draft / "engine.bin").write_bytes(bytes(stem, "utf-8") + b"\0" * (size - len(stem)))
        save_reference(draft / "reference.npz", [{"image": np.zeros(1)}], [{"logits": np.zeros(1)}])
    return path


def profile(path: Path, median: float = 1.5, **over: Any) -> None:
    samples = [median * (1 + 0.1 * abs(np.sin(i))) for i in range(200)] + [median * 40]
    latency = {
        "min": median,
        "median": median,
        "mean": median * 1.1,
        "p90": median * 1.2,
        "p99": median * 1.3,
        "std": 0.1,
    }
    result = {
        "schema_version": 1,
        "device": {"cpu": "Example CPU 9000", "cores_available": 4},
        "clocks": {"before_mhz": 2400.0, "after_mhz": 2200.0},
        "os": "Example OS",
        "threads": 0,
        "load_ms": 12.5,
        "first_run_ms": 7.25,
        "latency_ms": latency | {"samples": samples},
        "peak_memory_bytes": 64 << 20,
        "energy": None,
        "energy_reason": "no counter",
        "layers": [
            {
                "name": f"conv{i}",
                "op": "Conv" if i % 2 else "Relu",
                "unit": "cpu",
                "median_ms": 0.1 * i + 0.01,
                "share": 0.1,
            }
            for i in range(30)
        ],
        "warnings": ["drift: it got slower"],
        "bundle": identify(path),
        **over,
    }
    path.with_suffix(".profile.json").write_text(json.dumps(result))


def text_of(page: str) -> str:
    """What a reader sees."""
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def test_the_numbers_of_the_manifest_and_the_profile_are_on_the_page(tmp_path: Path) -> None:
    profile(bundle(tmp_path, "net-cpu"))
    shown = text_of(render(collect([tmp_path])))
    for expected in (
        "net.pth", "abababababababab…", "31.4 dB", "47.1 dB", "91.54 %", "source 91.78 %", "0.24 %", "4000", "1.500 ms",
        "p99 1.950 ms, 201 runs", "12.500 ms", "7.250 ms", "64.0 MiB", "4.9 KiB", "40.81 M", "123.5 k parameters",
        "0.998765", "75.00 %", "conv29", "6 faster ones not shown", "softmax runs on the CPU", "drift: it got slower",
        "NonZero", "dynamic output", "small and sensitive", "entropy over 77 samples", "int8, 2:4 sparse", "43.21 % of the weights", "maker 3.2.1", "Example CPU 9000",
        "not known: no counter", "image: float32[N, 3, 8, 8]", "verified",
    ):  # fmt: skip
        assert expected in shown, expected


def test_everything_is_escaped(tmp_path: Path) -> None:
    path = bundle(
        tmp_path, "evil", name=EVIL, device=EVIL, target=EVIL,
        source={"file": EVIL, "sha256": EVIL, "kind": EVIL},
        engine={
            "kind": "null", "files": ["engine.bin"], "versions": {"a": EVIL}, "notes": [EVIL], "settings": {},
            "layers": [{"name": EVIL, "op": EVIL, "precision": EVIL, "unit": EVIL}],
        },
        parity={"how": EVIL, "stand_in": False, **parity(20.0, EVIL)},
        support={"taken": 0, "total": 1, "refused": [{"node": EVIL, "op": EVIL, "reason": EVIL}]},
    )  # fmt: skip
    layer = {"name": EVIL, "op": EVIL, "unit": EVIL, "median_ms": 1.0, "share": 1.0}
    profile(path, layers=[layer], warnings=[EVIL], os=EVIL)
    profile(bundle(tmp_path, "other"), 3.0)
    page = render(collect([tmp_path]))
    assert elements(page) & {"script", "img", "iframe", "object"} == set()
    assert not [name for name in attributes(page) if name.startswith("on")]
    assert EVIL in text_of(page)


def elements(page: str) -> set[str]:
    return {tag for tag, _ in parsed(page)}


def attributes(page: str) -> set[str]:
    return {name for _, pairs in parsed(page) for name, _ in pairs}


def parsed(page: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, attrs))

    Parser().feed(page)
    return found


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    profile(bundle(tmp_path, "net"))
    places = [
        value
        for _, pairs in parsed(render(collect([tmp_path])))
        for name, value in pairs
        if name in ("src", "href", "action")
    ]
    assert all(place and place.startswith(("#", "data:")) for place in places)
    assert "url(" not in render(collect([tmp_path]))


def test_results_are_matched_by_the_engine_not_by_the_name(tmp_path: Path) -> None:
    path = bundle(tmp_path, "net")
    profile(path, 8.125)
    assert collect([tmp_path]).entries[0].profile is not None
    shutil.rmtree(path)
    bundle(tmp_path, "net", size=6000)  # built again: the old measurement is not its own
    found = collect([tmp_path])
    assert found.entries[0].profile is None
    assert "8.125" not in render(found)


def test_what_could_not_be_checked_or_failed_is_not_called_verified(tmp_path: Path) -> None:
    bundle(tmp_path, "a-skipped", parity={"skipped": "no GPU here"}, accuracy=None)
    bundle(tmp_path, "b-stand-in", parity={"how": "numpy", "stand_in": True, **parity(20.0)})
    bundle(tmp_path, "c-failed", parity={"how": "it", "stand_in": False, **parity(2.0), "passed": False})
    page = text_of(render(collect([tmp_path])))
    for words in ("not checked here", "Not checked here: no GPU here", "verified by a stand-in", "parity failed"):
        assert words in page


def test_eval_and_verify_results_beside_a_bundle_are_shown(tmp_path: Path) -> None:
    path = bundle(tmp_path, "net", accuracy=None)
    told = {"schema_version": 1, "bundle": identify(path)}
    measured = {"metric": "own.py:f1", "value": 0.4321, "n": 17, "data": "d.npz", "how": "it ran"}
    (tmp_path / "eval.json").write_text(json.dumps(told | measured))
    (tmp_path / "verify.json").write_text(
        json.dumps(told | {"how": "it", "against": "other.pth", "parity": parity(12.5)})
    )
    (tmp_path / "unrelated.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    page = text_of(render(collect([tmp_path])))
    for words in ("own.py:f1", "0.4321", "Verified against other.pth", "12.5 dB"):
        assert words in page


def test_damaged_bundles_and_failed_targets_are_said(tmp_path: Path) -> None:
    bundle(tmp_path, "good")
    (bundle(tmp_path, "bad") / "engine.bin").write_bytes(b"flipped")
    failed = {"target": "coreml", "device": "iphone", "errors": [{"message": "cannot take NonZero."}]}
    (tmp_path / "convert.json").write_text(json.dumps({"schema_version": 1, "targets": [failed]}))
    page = text_of(render(collect([tmp_path])))
    assert "changed since the build" in page
    assert "coreml on iphone: cannot take NonZero." in page


def test_report_writes_the_page_and_says_where(tmp_path: Path) -> None:
    path = bundle(tmp_path / "out", "net")
    assert report([tmp_path / "out"])["output"] == str(tmp_path / "out" / "report.html")
    assert report([path])["output"] == str(tmp_path / "out" / "report.html")
    open_bundle(path)  # nothing was written into it
    result = report([tmp_path / "out"], tmp_path / "page.html")
    assert result["bundles"] == [str(path)]
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("place", ["", "nothing-here"])
def test_no_bundle_is_an_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(ToolchainError, match="nothing to report on"):
        report([tmp_path / place])
    assert list(tmp_path.iterdir()) == []


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("CI must have chromium: the page is looked at in a real browser")
    if found is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    return str(found)


def look(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--window-size=1280,1600",
    ]  # fmt: skip
    command = [browser(), *flags, f"--user-data-dir={folder}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.e2e
def test_a_real_browser_renders_the_page_without_a_complaint(tmp_path: Path) -> None:
    from PIL import Image

    for name, target, median, value in (("net-cpu", "cpu", 1.5, 0.9154), (EVIL[:8] + "b", "gpu", 0.5, 0.9012)):
        made = bundle(
            tmp_path, f"net-{target}", name=name, target=target, accuracy={**manifest()["accuracy"], "value": value}
        )
        profile(made, median)
    page = tmp_path / "report.html"
    report([tmp_path], page)
    done = look(page, tmp_path / "browser", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    shown = text_of(done.stdout)
    for expected in ("31.4 dB", "91.54 %", "90.12 %", "1.500 ms", "0.500 ms", "<script>b", "Where the time goes"):
        assert expected in shown
    assert done.stdout.count("<svg") == 5  # two charts for each bundle, and the trade
    assert "<script" not in done.stdout
    picture = tmp_path / "page.png"
    look(page, tmp_path / "browser2", f"--screenshot={picture}")
    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 200  # text, bars, charts: not an empty page
    assert max(count for count, _ in colours) < 0.9 * 1280 * 1600


@pytest.mark.e2e
def test_the_browser_test_sees_a_console_error(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><script>console.error('wrong')</script>")
    assert "CONSOLE" in look(page, tmp_path / "browser", "--dump-dom").stderr
