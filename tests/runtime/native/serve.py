"""Run engine files for a test, in a process of its own: messages and answers are pickles on stdin and stdout."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer until stdin ends."""
    spec = importlib.util.spec_from_file_location("native_conftest", Path(__file__).with_name("conftest.py"))
    assert spec and spec.loader
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    native = conftest.load_native()
    # What a library prints must not come between two answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)  # noqa: S301 - the test's own
        except EOFError:
            return
        pickle.dump(answer(native, *message), answers)
        answers.flush()


def answer(native: Any, verb: str, *arguments: Any) -> Any:
    """Arrays; (status, message) where libedgewise refuses; another exception as it is."""
    try:
        if verb == "isas":
            return native.isas()
        file, arrays, threads = arguments
        return native.Context(native.Engine(file), threads=threads).run(arrays)
    except native.NativeError as error:
        return error.args
    except (TypeError, ValueError) as error:
        return error


if __name__ == "__main__":
    main()
