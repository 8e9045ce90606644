"""Device profiles: the shipped ones hold their schema, other people's are refused with a sentence that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.targets import TargetError, device_profiles, find_device, targets
from edgewise.targets.devices import FACTS, parse_profile, read_profile

GOOD = 'summary = "a board"\ntargets = ["cpu"]\narch = "aarch64"\nisa = ["asimd"]\nmemory_bytes = 1024\n'
NEEDED = {
    "x86-64-v3", "x86-64-v4-vnni", "raspberrypi5", "jetson-orin-nano", "jetson-agx-orin", "rtx-4070", "iphone-15-pro", "pixel-9",
}  # fmt: skip


def test_the_profiles_that_were_asked_for_are_there() -> None:
    assert set(device_profiles()) >= NEEDED


@pytest.mark.parametrize("name", sorted(device_profiles()))
def test_every_profile_names_targets_that_exist_and_agree_with_its_table(name: str) -> None:
    profile = device_profiles()[name]
    assert set(profile.targets) <= set(targets())
    for target in profile.targets:
        found = targets()[target]
        if "int8" in found.schemes:
            found.quantization("int8", profile)


def test_every_targets_default_device_is_one_of_its_own() -> None:
    for name, target in targets().items():
        assert name in find_device(target.default_device, name).targets


def test_fact_names_carry_their_unit() -> None:
    units = ("_bytes", "_bytes_per_s", "_hz", "_w", "cores")
    assert all(key.endswith(units) for key, (kind, _) in FACTS.items() if kind is int)


def test_a_profile_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text(GOOD)
    profile = find_device(str(path), "cpu")
    assert (profile.name, profile.facts["memory_bytes"], profile.targets) == ("my-board", 1024, ("cpu",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'colour = "red"\n', "found the unknown key 'colour'"),
        (GOOD + "[tensorrt]\nsm = 87\n", "found the unknown key 'tensorrt'"),
        ('summary = "x"\n', "found no 'targets'"),
        ('targets = ["cpu"]\n', "found no 'summary'"),
        (GOOD.replace("1024", '"1 GB"'), "found memory_bytes = '1 GB'; expected memory_bytes of type integer"),
        (GOOD.replace("1024", "-1"), "found memory_bytes = -1; expected a positive number"),
        (GOOD.replace("1024", "true"), "found memory_bytes = True"),
        (GOOD.replace('["cpu"]', '"cpu"'), "found targets = 'cpu'; expected targets as a list of strings"),
        (GOOD.replace('["cpu"]', "[]"), "found targets = []"),
        (GOOD.replace('["asimd"]', "[1]"), "found isa = [1]"),
        (GOOD + "cpu = 1\n", "found cpu = 1; expected cpu of type table"),
        (GOOD + "=\n", "expected TOML"),
    ],
)
def test_a_profile_that_breaks_the_schema_is_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_profile("my-board", text)
    assert message in str(caught.value)
    assert "my-board" in str(caught.value)
    assert caught.value.fix


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="No such file"):
        read_profile(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="not UTF-8"):
        read_profile(tmp_path / "binary.toml")


def test_an_unknown_device_lists_those_that_fit() -> None:
    with pytest.raises(TargetError, match=r"found 'toaster'; expected one of .*raspberrypi5") as caught:
        find_device("toaster", "cpu")
    assert "rtx-4070" not in str(caught.value)


def test_a_device_that_the_target_does_not_serve_says_what_it_has() -> None:
    with pytest.raises(TargetError, match="'rtx-4070', which has tensorrt"):
        find_device("rtx-4070", "cpu")


def test_a_targets_own_table_is_checked() -> None:
    profile = parse_profile("b", GOOD + "[cpu]\nspeed = 1\n")
    with pytest.raises(TargetError, match=r"table \[cpu\]\): found the unknown key 'speed'"):
        profile.table("cpu")
    with pytest.raises(TargetError, match="found no 'sm'"):
        profile.table("cpu", {"sm": int}, {"speed": int})
    with pytest.raises(TargetError, match="expected speed of type string"):
        profile.table("cpu", {"speed": str})
    assert profile.table("cpu", {"speed": int}) == {"speed": 1}
