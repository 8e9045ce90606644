"""Recipes: read, refused, overridden, resolved for a target, written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.errors import ToolchainError
from edgewise.recipe import Recipe, read_recipe, write_recipe
from edgewise.settings import QuantizeSettings, TargetChoice

FULL = """
source: net.pth
arch: nets.py:small
inputs: ["x=f32[1,3,8,8]"]
targets:
  - cpu
  - {target: tensorrt, device: jetson-orin-nano, build: {options: {precision: fp16}}, quantize: null}
quantize: {scheme: int8, calib: calib.npz, keep_float: [head]}
verify: {min_sqnr: 12}
profile: null
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_with_defaults_for_what_it_does_not_say(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, FULL))
    assert recipe.arch == f"{tmp_path}/nets.py:small"
    assert recipe.quantize == QuantizeSettings("int8", calib=str(tmp_path / "calib.npz"), keep_float=("head",))
    assert recipe.export is not None and recipe.export.min_sqnr == 60.0
    assert recipe.profile is None and recipe.prune is None
    assert recipe.verify is not None and recipe.verify.min_sqnr == 12.0


def test_a_target_s_own_keys_are_merged_into_its_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, FULL))
    cpu, tensorrt = (recipe.for_target(choice) for choice in recipe.targets)
    assert cpu.quantize is not None and tensorrt.quantize is None
    assert tensorrt.build is not None and tensorrt.build.options == {"precision": "fp16"}
    assert tensorrt.targets == (TargetChoice("tensorrt", "jetson-orin-nano"),)


def test_a_recipe_survives_being_written_elsewhere(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, FULL))
    other = tmp_path / "out" / "x.edge" / "recipe.yaml"
    other.parent.mkdir(parents=True)
    write_recipe(recipe, other)
    again = read_recipe(other)
    assert Path(again.source or "").resolve() == (tmp_path / "net.pth").resolve()
    assert (
        again.quantize is not None and Path(again.quantize.calib or "").resolve() == (tmp_path / "calib.npz").resolve()
    )
    write_recipe(again, tmp_path / "out" / "x.edge" / "second.yaml")
    assert other.read_text() == (other.parent / "second.yaml").read_text()


def test_relative_paths_in_a_file_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FULL)
    monkeypatch.chdir(tmp_path.parent)
    recipe = read_recipe(Path(tmp_path.name) / "recipe.yaml")
    assert recipe.source == f"{tmp_path.name}/net.pth"
    write_recipe(recipe, Path("copy") / "recipe.yaml")
    assert f"source: ../{tmp_path.name}/net.pth\n" in Path("copy/recipe.yaml").read_text()


def test_paths_of_one_target_s_own_keys_are_relative_to_the_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("board.toml", "score.py", "labels.txt"):
        (tmp_path / name).write_text("")
    own = "quantize: {calib: own.npz, metric: 'score.py:f1'}, build: {options: {labels: labels.txt}}, verify: {metric: top1}"
    write(
        tmp_path,
        f"targets: [{{target: coreml, device: board.toml, {own}, prune: null}}, {{target: cpu, device: x86-64-v3}}]",
    )
    monkeypatch.chdir(tmp_path.parent)
    coreml, cpu = read_recipe(Path(tmp_path.name) / "recipe.yaml").targets
    assert (coreml.device, cpu.device) == (f"{tmp_path.name}/board.toml", "x86-64-v3")
    assert coreml.overrides == {
        "prune": None,
        "quantize": {"calib": f"{tmp_path.name}/own.npz", "metric": f"{tmp_path.name}/score.py:f1"},
        "build": {"options": {"labels": f"{tmp_path.name}/labels.txt"}},
        "verify": {"metric": "top1"},
    }


@pytest.mark.parametrize("place", ["timm:resnet18", "package.module:make", "/abs/net.pth", "hf:owner/model"])
def test_texts_without_a_relative_path_stay(tmp_path: Path, place: str) -> None:
    assert Recipe(arch=place).relocated(tmp_path, tmp_path / "b").arch == place


def test_options_go_over_the_recipe_and_turn_stages_on() -> None:
    recipe = Recipe.from_json({"quantize": {"method": "mse"}, "profile": None})
    changed = recipe.with_options({"quantize.scheme": "w8a16", "arch": None, "inputs": (), "profile.threads": 2})
    assert changed.quantize is not None and (changed.quantize.scheme, changed.quantize.method) == ("w8a16", "mse")
    assert changed.profile is not None and changed.profile.threads == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantise: {}", ["'quantise'", "Did you mean 'quantize'?"]),
        ("quantize: {shceme: int8}", ["quantize", "'shceme'", "Did you mean 'scheme'?"]),
        ("targets: [{target: cpu, divice: x}]", ["targets[0]", "'divice'", "Did you mean 'device'?"]),
        ("targets: [{target: cpu, build: {option: {}}}]", ["targets[0], build", "'option'", "Did you mean 'options'?"]),
        ("targets: cpu", ["targets", "expected a list of targets"]),
        ("quantize: {samples: many}", ["quantize.samples", "'many'", "expected a whole number"]),
        ("quantize: {samples: true}", ["quantize.samples", "expected a whole number"]),
        ("prune: {pattern: '2:4'}", ["prune", "no 'sparsity'"]),
        ("prune: yes please", ["prune", "expected a table of keys, or null to skip the stage"]),
        ("inputs: 3", ["inputs", "expected a list of texts"]),
        ("schema_version: 9", ["schema_version 9", "expected 1"]),
        ("- a\n- b", ["found list", "expected a table of keys"]),
        ("a: [", ["expected YAML", "line 1"]),
    ],
)
def test_mistakes_are_refused_with_a_sentence(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ToolchainError) as caught:
        read_recipe(write(tmp_path, text))
    for word in [*words, str(tmp_path / "recipe.yaml")]:
        assert word in str(caught.value)


def test_a_missing_recipe_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="No such file or directory"):
        read_recipe(tmp_path / "nothing.yaml")
