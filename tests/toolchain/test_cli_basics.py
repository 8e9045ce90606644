"""The command line itself: help, version, completion, usage, JSON, bugs, what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewise.cli.app import VERBS
from edgewise.cli.manual import manual

_ROOT = Path(__file__).resolve().parents[2]


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgewise", *arguments], capture_output=True, text=True, env=os.environ | environment
    )


def test_help_lists_every_verb(cli: Any) -> None:
    done = cli("--help")
    assert done.code == 0
    assert all(f" {verb} " in done.out for verb in VERBS)


def test_nothing_at_all_is_a_call_for_help(cli: Any) -> None:
    done = cli()
    assert (done.code, done.err) == (0, "")
    assert "convert" in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_and_json(cli: Any, verb: str) -> None:
    done = cli(verb, "--help")
    assert done.code == 0
    assert "--json" in done.out


def test_help_imports_nothing_heavy() -> None:
    """What keeps ``edgewise --help`` under 0.3 s."""
    code = "import sys; sys.argv = ['edgewise', '--help']\nfrom edgewise.cli.outcome import run\nrun(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {
        "numpy",
        "onnx",
        "onnx_ir",
        "torch",
        "onnxruntime",
        "yaml",
        "jinja2",
        "PIL",
        "scipy",
        "pydantic",
    }


def test_the_manual_is_up_to_date() -> None:
    """Run scripts/docs after a change of the command line."""
    assert (_ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == manual()


def test_version(cli: Any) -> None:
    assert cli("--version").out.split() == ["edgewise", "0.1.0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspct"], ["inspct", "edgewise --help"]),
        (["quantize", "m.onnx", "-o", "q.onnx", "--target", "cpu", "--shceme", "int8"], ["--shceme", "--scheme", "edgewise quantize --help"]),
        (["build", "m.onnx", "-o", "x.edge"], ["--target"]),
        (["profile", "x.edge", "--threads", "many"], ["--threads", "edgewise profile --help"]),
        (["prune", "m.onnx", "-o", "p.onnx", "--pattern", "2:4", "--sparsity", "1.5"], ["--sparsity"]),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(cli: Any, arguments: list[str], words: list[str]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert all(word in done.err for word in words), done.err


def test_wrong_usage_with_json_is_json(cli: Any) -> None:
    done = cli("build", "m.onnx", "--json")
    assert done.code == done.json["exit_code"] == 2
    assert done.json["schema_version"] == 1
    assert "--output" in done.json["error"]["message"]


def test_an_error_with_json_has_the_five_parts(cli: Any, tmp_path: Path) -> None:
    done = cli("inspect", tmp_path / "none.onnx", "--json")
    assert done.code == 2
    assert set(done.json["error"]) >= {"what", "where", "found", "expected", "fix", "message"}
    assert done.json["error"]["found"] == "no such file"
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("edgewise e", {"export", "eval"}),
        ("edgewise quantize --sch", {"--scheme"}),
        ("edgewise build --target te", {"tensorrt"}),
        ("edgewise build --device rasp", {"raspberrypi5"}),
    ],
)
def test_completion_knows_verbs_options_targets_and_devices(line: str, words: set[str]) -> None:
    done = program(_EDGEWISE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))
    assert words <= set(done.stdout.split())


def test_a_bug_is_said_so_and_shows_its_traceback_on_request(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.verbs.devices.this_machine", lambda: 1 / 0)
    monkeypatch.delenv("EDGEWISE_DEBUG", raising=False)
    done = cli("devices", "--json")
    assert done.code == done.json["exit_code"] == 70
    assert "this is a bug in edgewise" in done.err
    assert "ZeroDivisionError" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in cli("--debug", "devices").err
    monkeypatch.setenv("EDGEWISE_DEBUG", "1")
    assert "Traceback" in cli("devices").err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "secret.onnx"), ["Permission denied", "secret.onnx"]),
        (MemoryError(), ["out of memory"]),
    ],
)
def test_what_the_system_refuses_is_no_bug(
    cli: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, words: list[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("edgewise.verbs.devices.this_machine", fail)
    done = cli("devices")
    assert done.code == 2
    assert all(word in done.err for word in words)


@pytest.mark.slow
def test_nothing_but_the_result_is_on_stdout(tiny: Path, calib: Path, tmp_path: Path) -> None:
    """Vendors' builders print on stdout, from C++ too: it all goes to stderr."""
    (tmp_path / "loud.py").write_text(
        "import os, sys, numpy as np\n"
        "def data():\n"
        "    print('from Python'); os.write(1, b'from C\\n')\n"
        "    yield {'x': np.ones((1, 3, 8, 8), np.float32)}\n"
    )
    done = program(
        "quantize",
        str(tiny),
        "-o",
        str(tmp_path / "q.onnx"),
        "--target",
        "cpu",
        "--calib",
        f"{tmp_path}/loud.py:data",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema_version"] == 1
    assert "from Python" in done.stderr
    assert "from C" in done.stderr


def test_no_colours_off_a_terminal() -> None:
    done = program("devices")
    assert "\x1b" not in done.stdout + done.stderr
    assert "raspberrypi5" in done.stdout


def test_a_closed_pipe_is_no_error() -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "edgewise", "devices"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    with running.stderr as stderr:
        assert stderr.read() == b""
    assert running.wait() == 141
