"""``convert``: all stages for several targets, resuming, running a bundle's own recipe, gates; and the single verbs beside it."""

from __future__ import annotations

import importlib
import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewise
from edgewise.recipe import Recipe, read_recipe
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.errors import EdgewiseError
from edgewise.stages import identity
from edgewise.stages.cache import Cache
from edgewise.stages.identity import code_digest, user_sources
from edgewise.stages.profile import engine_digests

pytestmark = pytest.mark.slow

PROFILED = Recipe(export=None).with_options({"profile.runs": 5, "profile.warmup": 1, "profile.per_layer": False})


def convert(source: Path | None, out: Path, **options: Any) -> dict[str, Any]:
    """Of ONNX as it is, and not profiled, which takes the longest, unless a test is about that."""
    told = {"target": "cpu", "recipe": Recipe(export=None, profile=None), **options}
    return edgewise.convert(source, out, **told)


def engine(bundle: str | Path) -> list[str]:
    return engine_digests(open_bundle(bundle).manifest)


def reused(result: dict[str, Any], target: int = 0) -> dict[str, bool]:
    return {stage["stage"]: stage["reused"] for stage in result["targets"][target]["stages"]}


@pytest.fixture(scope="module")
def converted(tiny: Path, calib: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An int8 conversion for two targets. Not to be changed."""
    out = tmp_path_factory.mktemp("converted")
    options = {"quantize.calib": str(calib), "verify.data": str(calib)}
    return convert(tiny, out, target=["cpu", "null"], options=options, recipe=PROFILED)


def test_every_part_of_the_result_is_there(converted: dict[str, Any], tiny: Path) -> None:
    out = Path(converted["output"])
    names = {
        "tiny.onnx",
        "tiny-cpu.edge",
        "tiny-null.edge",
        "tiny-cpu.profile.json",
        "report.html",
        "convert.json",
        ".cache",
    }
    assert names <= {path.name for path in out.iterdir()}
    cpu, null = converted["targets"]
    assert (converted["exit_code"], cpu["exit_code"], null["exit_code"]) == (0, 0, 0)
    assert cpu["parity"]["passed"]
    assert cpu["parity"]["against_onnx"]["passed"]
    assert cpu["parity"]["outputs"][0]["sqnr_db"] > 10
    assert cpu["accuracy"]["n"] == 24
    assert cpu["profile"]["latency_ms"]["median"] > 0
    assert "computes nothing" in null["parity"]["skipped"]
    assert [stage["stage"] for stage in cpu["stages"]] == ["export", "quantize", "build", "verify", "profile"]
    assert json.loads((out / "convert.json").read_text())["targets"] == converted["targets"]


def test_the_manifest_says_what_was_done(converted: dict[str, Any], tiny: Path) -> None:
    manifest = open_bundle(converted["targets"][0]["bundle"]).manifest
    assert manifest["source"]["file"] == "tiny.onnx"
    assert manifest["inputs"][0] == {
        "name": "x",
        "dtype": "float32",
        "shape": [1, 3, 8, 8],
        "symbolic": [],
        "layout": "NCHW",
    }
    assert manifest["network"]["parameters"] > 8 * 27
    assert manifest["quantization"]["scheme"] == "int8"
    assert manifest["quantization"]["data"] == {"source": "calib.npz", "random": False}
    assert set(manifest["stages"]) == {"export", "quantize", "build", "verify"}
    assert manifest["versions"]["edgewise"] == edgewise.__version__


def test_devices_whose_weights_differ_share_what_is_seen_of_activations(
    tiny: Path, calib: Path, tmp_path: Path
) -> None:
    devices, tasks = ["x86-64-v3", "x86-64-v4-vnni"], set()
    recipe = Recipe(export=None, build=None, profile=None).with_options({"quantize.calib": str(calib)})

    def models(out: str, *chosen: str) -> list[bytes]:
        result = edgewise.convert(
            tiny,
            tmp_path / out,
            target="cpu",
            device=list(chosen),
            recipe=recipe,
            progress=lambda task, *_: tasks.add(task),
        )
        return [Path(target["model"]).read_bytes() for target in result["targets"]]

    together = models("together", *devices)
    assert [f"tiny-cpu-{device}: balance" in tasks for device in devices] == [True, False]
    assert together == [models(device, device)[0] for device in devices]
    assert together[0] != together[1]


def test_unlabelled_data(cli: Any, tiny: Path, calib: Path, tmp_path: Path) -> None:
    code = f"import numpy as np\ndef test():\n    for x in np.load({str(calib)!r})['x']:\n        yield {{'x': x}}\n"
    (tmp_path / "plain.py").write_text(code)
    data = ("--data", f"{tmp_path}/plain.py:test", "--metric", "agreement")
    done = cli("convert", tiny, "-o", tmp_path / "out", "--target", "cpu", *data, "--json")
    accuracy = done.json["targets"][0]["accuracy"]
    assert (accuracy["metric"], accuracy["value"], accuracy["source_value"], accuracy["n"]) == (
        "agreement",
        1.0,
        1.0,
        24,
    )
    done = cli("convert", tiny, "-o", tmp_path / "out", "--target", "cpu", *data[:2], "--metric", "none", "--json")
    (target,) = done.json["targets"]
    assert (target["exit_code"], target["accuracy"]) == (0, None)
    samples, _ = open_bundle(target["bundle"]).reference()
    np.testing.assert_array_equal(samples[0]["x"], np.load(calib)["x"][:1])


def test_the_accuracies_are_those_of_eval(converted: dict[str, Any], tiny: Path, calib: Path) -> None:
    """Before and after with the same command, and by hand."""
    accuracy = converted["targets"][0]["accuracy"]
    after = edgewise.evaluate(converted["targets"][0]["bundle"], data=str(calib), against=tiny)
    assert (after["value"], after["source_value"]) == (accuracy["value"], accuracy["source_value"])
    model = edgewise.load(converted["targets"][0]["bundle"])
    arrays = np.load(calib)
    right = [
        model.run({"x": x[None]})["y"].argmax() == label for x, label in zip(arrays["x"], arrays["label"], strict=True)
    ]
    assert after["value"] == pytest.approx(np.mean(right))


def test_a_bundles_own_recipe_gives_the_same_engine(converted: dict[str, Any], tmp_path: Path) -> None:
    bundle = Path(converted["targets"][0]["bundle"])
    again = edgewise.convert(None, tmp_path / "again", recipe=bundle / "recipe.yaml")
    assert again["exit_code"] == 0
    assert engine(again["targets"][0]["bundle"]) == engine(bundle)
    inner = Path(again["targets"][0]["bundle"]) / "recipe.yaml"
    assert inner.read_text().replace("../", "") == (bundle / "recipe.yaml").read_text().replace("../", "")


def test_the_single_verbs_give_the_same_engine(
    converted: dict[str, Any], tiny: Path, calib: Path, tmp_path: Path
) -> None:
    edgewise.quantize(tiny, tmp_path / "q.onnx", target="cpu", calib=str(calib))  # type: ignore[operator]
    result = edgewise.build(tmp_path / "q.onnx", tmp_path / "tiny.edge", target="cpu")
    assert engine(tmp_path / "tiny.edge") == engine(converted["targets"][0]["bundle"])
    assert open_bundle(result["bundle"]).manifest["quantization"]["scheme"] == "int8"  # it travelled inside the ONNX
    provenance = open_bundle(result["bundle"]).manifest["source"]
    assert provenance["file"] == "q.onnx" or provenance["file"] == "tiny.onnx"


def test_a_rerun_reuses_every_stage(tiny: Path, calib: Path, tmp_path: Path) -> None:
    options = {"quantize.calib": str(calib)}
    first = convert(tiny, tmp_path, options=options, recipe=PROFILED)
    assert set(reused(first).values()) == {False}
    second = convert(tiny, tmp_path, options=options, recipe=PROFILED)
    assert reused(second) == dict.fromkeys(reused(first), True)
    assert second["targets"][0]["profile"] == first["targets"][0]["profile"]
    third = convert(tiny, tmp_path, options=options, cache=False)
    assert set(reused(third).values()) == {False}


def test_a_rerun_resumes_where_something_changed(tiny: Path, calib: Path, tmp_path: Path) -> None:
    options = {"quantize.calib": str(calib)}
    convert(tiny, tmp_path, options=options)
    stricter = convert(tiny, tmp_path, options=options | {"verify.min_sqnr": 11.0})
    assert reused(stricter) == {"export": True, "quantize": True, "build": True, "verify": False}
    other = convert(tiny, tmp_path, options=options | {"quantize.method": "percentile"})
    assert reused(other) == {"export": True, "quantize": False, "build": False, "verify": False}


def test_other_options_of_a_target_make_another_engine(tiny: Path, tmp_path: Path) -> None:
    convert(tiny, tmp_path, options={"build.options": {"optimization": "basic"}})
    again = convert(tiny, tmp_path, options={"build.options": {"optimization": "all"}})
    assert reused(again) == {"export": True, "build": False, "verify": False}


def test_a_changed_source_or_data_file_is_seen(tiny: Path, calib: Path, tmp_path: Path) -> None:
    source, data = tmp_path / "net.onnx", tmp_path / "d.npz"
    shutil.copy(tiny, source)
    shutil.copy(calib, data)
    options = {"quantize.calib": str(data)}
    convert(source, tmp_path / "out", options=options)
    arrays = dict(np.load(data))
    np.savez(data, **arrays | {"x": arrays["x"] * 2})
    assert reused(convert(source, tmp_path / "out", options=options))["quantize"] is False


def test_a_damaged_cache_or_bundle_is_made_again(tiny: Path, tmp_path: Path) -> None:
    convert(tiny, tmp_path)
    (entry,) = (tmp_path / ".cache").glob("export-*")
    (entry / "model.onnx").write_bytes(b"flipped")
    (tmp_path / "tiny-cpu.edge" / "model.engine").write_bytes(b"flipped")
    again = convert(tiny, tmp_path)
    assert reused(again)["export"] is False
    assert reused(again)["build"] is False
    open_bundle(tmp_path / "tiny-cpu.edge")


def test_a_rebuilt_library_makes_engines_again(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(tiny, tmp_path / "out")
    (tmp_path / "library_of_another_build.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("edgewise.stages.identity._LIBRARY", "library_of_another_build")
    code_digest.cache_clear()
    try:
        assert reused(convert(tiny, tmp_path / "out"))["build"] is False
    finally:
        code_digest.cache_clear()


def test_the_cache_forgets_when_the_user_s_own_code_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "users_own_data.py"
    module.write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    cache = Cache(tmp_path / "cache")

    def compute() -> int:
        import users_own_data

        return int(users_own_data.value)

    assert cache.value("x", {}, compute)[1].reused is False
    assert Cache(tmp_path / "cache").value("x", {}, compute)[1].reused is True
    module.write_text("value = 12\n")
    assert Cache(tmp_path / "cache").value("x", {}, compute)[1].reused is False


def test_packages_of_another_environment_are_nobodys_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("mine", "system/dist-packages"):
        (tmp_path / folder).mkdir(parents=True)
        name = f"found_in_{folder.rpartition('/')[2].replace('-', '_')}"
        (tmp_path / folder / f"{name}.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / folder)
        importlib.import_module(name)
    assert {Path(file).name for file in user_sources()} & {"found_in_mine.py", "found_in_dist_packages.py"} == {
        "found_in_mine.py"
    }


def test_a_folder_whose_name_begins_like_that_of_packages_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("lib", "lib_of_mine"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"found_in_{folder}.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / folder)
        importlib.import_module(f"found_in_{folder}")
    places = dict.fromkeys(sysconfig.get_paths(), str(tmp_path / "lib"))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: places)
    monkeypatch.setattr(identity, "_installed", identity._installed.__wrapped__)  # not what was found before
    own = [Path(file).name for file in user_sources() if Path(file).is_relative_to(tmp_path)]
    assert own == ["found_in_lib_of_mine.py"]


def test_the_cache_keeps_only_what_the_last_good_run_used(tiny: Path, calib: Path, tmp_path: Path) -> None:
    convert(tiny, tmp_path, options={"quantize.calib": str(calib)})
    before = {path.name for path in (tmp_path / ".cache").iterdir()}
    convert(tiny, tmp_path, options={"quantize.calib": str(calib), "quantize.method": "minmax"})
    after = {path.name for path in (tmp_path / ".cache").iterdir()}
    assert [name.split("-")[0] for name in sorted(after)] == ["export", "quantize"]
    assert len(after & before) == 1


def test_a_failing_target_does_not_stop_the_others(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.targets import find_target

    def broken(request: Any) -> None:
        (request.folder / "half").write_text("half")
        raise RuntimeError("the vendor's builder fell over")

    monkeypatch.setattr(type(find_target("null")), "build", lambda self, request: broken(request))
    result = convert(tiny, tmp_path, target=["null", "cpu"])
    null, cpu = result["targets"]
    assert (result["exit_code"], null["exit_code"], cpu["exit_code"]) == (2, 2, 0)
    assert "the vendor's builder fell over" in null["errors"][0]["message"]
    assert null["bundle"] is None
    assert not (tmp_path / "tiny-null.edge").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tiny")]
    assert "the vendor's builder fell over" in (tmp_path / "report.html").read_text().replace("&#39;", "'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"verify.min_sqnr": 900.0}, "expected at least 900 dB"),
        ({"profile.max_latency_ms": 1e-9}, "the network is too slow"),
        ({"verify.min_accuracy": 1.01}, "the accuracy is too low"),
        ({"verify.max_drop": -1.0}, "expected a drop of at most -1"),
    ],
)
def test_gates(tiny: Path, calib: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    told = {"quantize.calib": str(calib), "verify.data": str(calib), **options}
    result = convert(tiny, tmp_path, options=told)
    (cpu,) = result["targets"]
    assert (result["exit_code"], cpu["exit_code"]) == (1, 1)
    assert words in cpu["errors"][0]["message"]
    assert open_bundle(cpu["bundle"]).manifest["name"] == "tiny-cpu"  # it stays, for looking into it
    again = convert(tiny, tmp_path, options=told)
    assert again["exit_code"] == 1  # reusing it does not open the gate


@pytest.mark.parametrize(
    "options",
    [
        {"verify.min_sqnr": 1.0},
        {"verify.min_accuracy": 0.0},
        {"profile.max_latency_ms": 1e9, "profile.device": "adb:1"},
    ],
)
def test_a_gate_that_cannot_be_checked_has_not_held(tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    target = "cpu" if "profile.device" in options else "null"
    result = convert(tiny, tmp_path, target=target, options=options)
    assert result["exit_code"] == 1
    assert "cannot be checked" in result["targets"][0]["errors"][0]["message"]


def test_full_delegation_builds_nothing_when_a_node_is_refused(
    tiny: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgewise.targets import NodeSupport, find_target

    refusal = [NodeSupport("relu", "Relu", False, "not today")]
    monkeypatch.setattr(type(find_target("null")), "support", lambda self, model, device: refusal)
    done = cli("build", tiny, "-o", tmp_path / "x.edge", "--target", "null", "--require-full-delegation", "--json")
    assert done.code == done.json["exit_code"] == 1
    assert "Relu 'relu': not today" in done.json["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_one_target_for_two_devices_makes_two_bundles(tiny: Path, tmp_path: Path) -> None:
    result = convert(tiny, tmp_path, target=["null"], device=["raspberrypi5", "pixel-9"])
    assert [Path(entry["bundle"]).name for entry in result["targets"]] == [
        "tiny-null-raspberrypi5.edge",
        "tiny-null-pixel-9.edge",
    ]


def test_a_device_goes_to_the_targets_that_it_lists(tiny: Path, tmp_path: Path) -> None:
    result = convert(tiny, tmp_path, target=["cpu", "null"], device="raspberrypi5")
    assert {entry["device"] for entry in result["targets"]} == {"raspberrypi5"}


def test_an_option_goes_to_the_targets_that_have_it(tiny: Path, tmp_path: Path) -> None:
    result = convert(tiny, tmp_path, target=["cpu", "null"], options={"build.options": {"optimization": "basic"}})
    assert result["exit_code"] == 0
    own = [read_recipe(Path(entry["bundle"]) / "recipe.yaml").build for entry in result["targets"]]
    assert [build.options if build else None for build in own] == [{"optimization": "basic"}, {}]


def test_an_option_that_no_target_has_is_refused_before_any_work(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"found 'optimisation'.*Did you mean 'optimization'"):
        convert(tiny, tmp_path / "out", target=["cpu", "null"], options={"build.options": {"optimisation": "all"}})
    assert not (tmp_path / "out").exists()


def test_stages_can_be_skipped(tiny: Path, tmp_path: Path) -> None:
    recipe = Recipe(export=None, build=None)
    result = edgewise.convert(tiny, tmp_path / "a", target="cpu", recipe=recipe)
    assert Path(result["targets"][0]["model"]).name == "tiny-cpu.onnx"
    assert result["report"] is None
    recipe = Recipe(export=None, verify=None, profile=None)
    (cpu,) = edgewise.convert(tiny, tmp_path / "b", target="cpu", recipe=recipe)["targets"]
    assert "verify: null" in cpu["parity"]["skipped"]
    assert "profile: null" in cpu["profile"]["skipped"]
    assert not (tmp_path / "b" / "tiny-cpu.profile.json").exists()


def test_options_on_the_command_line_go_over_the_recipe(cli: Any, tiny: Path, calib: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"source: {tiny}\nname: mine\nexport: null\ntargets: ['null']\nquantize: {{method: mse}}\nprofile: null\n"
    )
    done = cli(
        "convert",
        "--recipe",
        recipe,
        "-o",
        tmp_path / "out",
        "--target",
        "cpu",
        "--calib",
        calib,
        "--samples",
        "7",
        "--json",
    )
    assert done.code == 0, done.err
    (cpu,) = done.json["targets"]
    written = read_recipe(Path(cpu["bundle"]) / "recipe.yaml")
    assert written.name == "mine"
    assert written.quantize is not None
    assert (written.quantize.method, written.quantize.samples) == ("mse", 7)
    assert [choice.target for choice in written.targets] == ["cpu"]
    assert "done" in done.err


def test_people_get_a_table(cli: Any, tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("export: null\nprofile: null\n")
    done = cli("convert", tiny, "--recipe", recipe, "-o", tmp_path / "out", "--target", "cpu", "--target", "null")
    assert done.code == 0
    for words in ("SQNR to source", "tiny-cpu.edge", "null: not checked", "report.html"):
        assert words in done.out
