"""``edgewise pack``: what it refuses, and the program that it writes; test_pack_cross.py compiles it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import ToolchainError
from edgewise.packing.example import example, identifier, ports_of
from edgewise.runtime.tensors import TensorSpec


def test_what_it_refuses(cli: Any, built: Path, tmp_path: Path) -> None:
    done = cli("pack", built, "--triple", "sparc-linux-musl", "-o", tmp_path / "out")
    assert done.code == 2
    assert "'sparc-linux-musl'" in done.err and "riscv64-linux-gnu" in done.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = cli("pack", built, "--triple", "x86_64-linux-musl", "-o", tmp_path / "mine")
    assert done.code == 2
    assert "found a folder with other files" in done.err
    assert not (tmp_path / "out").exists() and (tmp_path / "mine" / "letter.txt").exists()


def test_an_engine_for_another_processor_or_of_another_kind_is_refused(cli: Any, tiny: Path, tmp_path: Path) -> None:
    where = ("-o", tmp_path / "out")
    assert (
        cli(
            "build", tiny, "-o", tmp_path / "x86.edge", "--device", "x86-64-v3", "--target", "cpu", "--engine", "native"
        ).code
        == 0
    )
    done = cli("pack", tmp_path / "x86.edge", "--triple", "aarch64-linux-musl", *where)
    assert done.code == 2
    assert "an engine for x86_64, level 1" in done.err and "--device" in done.err
    assert cli("build", tiny, "--target", "null", "-o", tmp_path / "null.edge").code == 0
    done = cli("pack", tmp_path / "null.edge", "--triple", "aarch64-linux-musl", *where)
    assert done.code == 2
    assert "kind 'null'" in done.err and "--engine native" in done.err


def test_names_of_tensors_become_names_in_c() -> None:
    specs = [
        TensorSpec(name, "float32", (1,)) for name in ("input.1", "input_1", "int", "ew_run", "", "_x", "7", "engine")
    ]
    symbols = [port.symbol for port in ports_of(specs, {}, set())]
    assert symbols == ["input_1", "input_1_2", "int_2", "new_run", "n", "n_x", "n7", "engine_2"]
    assert identifier("größe") == "gr__e"


def test_free_dims_are_those_of_the_reference_or_one() -> None:
    specs = [TensorSpec("a", "int64", ("N", 3)), TensorSpec("b", "bool", (2, "M"))]
    a, b = ports_of(specs, {"a": (5, 3)}, set())
    assert (a.shape, a.free) == ((5, 3), True)
    assert b.declaration == "static uint8_t b[2] __attribute__((aligned(64))); /* bool[2,1] */"
    text = example("net", [a], [b], opening="ew_open(0, &engine)", include="", command="cc")
    assert "ew_set_input_shape(context, 0, (const int64_t[]){5, 3}, 2)" in text
    assert "i < 2;" in text
    with pytest.raises(ToolchainError, match="uint32"):
        ports_of([TensorSpec("c", "uint32", (1,))], {}, set())


def test_two_processes_build_a_triple_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from edgewise.runtime.devices import cross\n"
        "def build(triple, compiler, draft): (draft / 'who').write_text(sys.argv[1]); print('builds', flush=True); time.sleep(1)\n"
        "cross._build = build; print((cross.built('x86_64-linux-musl') / 'who').read_text())"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True, env={"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin"}
        )
        for name in "ab"
    ]  # fmt: skip
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert all(process.returncode == 0 for process in both)
    assert sorted(map(len, said)) == [1, 2]  # one of the two built
    assert said[0][-1] == said[1][-1]
