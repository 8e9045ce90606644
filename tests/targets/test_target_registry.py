"""Targets by entry point: other people's plugins work, and a broken one names itself and breaks nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from edgewise.targets import TargetError, find_target, registry, targets


class Plugin:
    """The least that somebody's target can be."""

    name = "toaster"
    summary = "a toaster"
    default_device = "x86-64-v3"
    options = MappingProxyType({})
    min_opset = 7
    schemes = ()

    def support(self, model: Any, device: Any) -> list[Any]:
        return []

    def quantization(self, scheme: str, device: Any) -> Any:
        raise TargetError("no scheme")

    def build(self, request: Any) -> Any:
        raise TargetError("no")

    def executor(self, bundle: Any) -> str:
        return "no"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def install(**found: str) -> None:
        entries = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in found.items())
        monkeypatch.setattr(registry, "entry_points", lambda group: entries.select(group=group))
        registry._discover.cache_clear()

    module = ModuleType("somebodys_plugin")
    vars(module).update(good=Plugin(), thief=type("Thief", (Plugin,), {"name": "null"})(), poor=object())
    monkeypatch.setitem(sys.modules, "somebodys_plugin", module)
    yield install
    monkeypatch.undo()
    registry._discover.cache_clear()


def test_a_plugin_is_a_target_like_any_other(plugins: Callable[..., None]) -> None:
    own = set(targets())
    plugins(toaster="somebodys_plugin:good")
    assert set(targets()) == own | {"toaster"}
    assert find_target("toaster").summary == "a toaster"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:x", "ModuleNotFoundError"),
        ("somebodys_plugin:absent", "AttributeError"),
        ("somebodys_plugin:poor", "without name, summary"),
        ("somebodys_plugin:thief", "'null', which another target has"),
    ],
)
def test_a_broken_plugin_is_named_and_the_others_work(plugins: Callable[..., None], value: str, message: str) -> None:
    own = targets()
    plugins(bad=value, toaster="somebodys_plugin:good")
    with pytest.warns(RuntimeWarning, match=f"cannot load a target plugin.*bad = {value}"):
        assert set(targets()) == set(own) | {"toaster"}
    assert find_target("null") is own["null"]
    with pytest.raises(TargetError, match=message):
        find_target("bad")


def test_an_unknown_target_lists_the_known() -> None:
    with pytest.raises(TargetError, match=r"found 'gpu'; expected one of .*cpu"):
        find_target("gpu")
