"""Progress: lines off a terminal; on one, a live line that leaves nothing but ticks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

CODE = """
from edgewise.cli.meter import Meter
try:
    with Meter() as meter:
        for done in range(3):
            meter('calibrate [with brackets]', done + 1, 3)
        meter('build', 0, None)
        {ending}
except ValueError:
    pass
"""


def on_a_terminal(ending: str, **environment: str) -> str:
    """What the program wrote on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", CODE.format(ending=ending)],
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"} | environment,
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    assert running.wait() == 0
    return text.decode()


def test_off_a_terminal_each_task_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(ending="pass")], capture_output=True, text=True, check=True
    )
    assert done.stderr == "calibrate [with brackets]\nbuild\n"
    assert done.stdout == ""


def test_on_a_terminal_finished_tasks_are_ticked() -> None:
    text = on_a_terminal("pass")
    assert "✓ calibrate [with brackets]" in text
    assert "✓ build" in text


def test_what_was_interrupted_is_not_ticked() -> None:
    text = on_a_terminal("raise ValueError")
    assert "✓ calibrate" in text
    assert "✗ build" in text


def test_what_did_not_get_a_step_done_is_crossed() -> None:
    text = on_a_terminal("meter('failed', 0, 1); meter('next', 1, 1)")
    assert "✗ failed" in text
    assert "✓ next" in text


def test_no_color_on_a_terminal() -> None:
    assert "\x1b[3" not in on_a_terminal("pass", NO_COLOR="1")


def test_a_dumb_terminal_gets_lines() -> None:
    assert on_a_terminal("pass", TERM="dumb").replace("\r\n", "\n") == "calibrate [with brackets]\nbuild\n"
