"""Errors a user can read: each says what failed, where, what was found, what was expected and what to do."""

from __future__ import annotations


class EdgewiseError(Exception):
    """A user's mistake or a limit that was met; the command line prints it as one line and exits with ``exit_code``.

    Args:
        what: what failed, as the start of a sentence ("cannot read the checkpoint").
        where: the file, pass, node or tensor.
        found: what was there.
        expected: what should have been there.
        fix: what the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", found: str = "", expected: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.found, self.expected, self.fix = what, where, found, expected, fix

    @property
    def parts(self) -> dict[str, str]:
        """The five by name, as they go from one process to another."""
        return {key: getattr(self, key) for key in ("what", "where", "found", "expected", "fix")}

    def __str__(self) -> str:
        """The five parts as one line."""
        text = self.what + (f" ({self.where})" if self.where else "")
        if self.found:
            text += f": found {self.found}"
        if self.expected:
            text += ("; " if self.found else ": ") + f"expected {self.expected}"
        return text.rstrip(".") + "." + (f" {self.fix.rstrip('.')}." if self.fix else "")


class RunError(EdgewiseError):
    """Raised by ``edgewise.runtime``: bundles, data, engines, profiling."""


class GateError(EdgewiseError):
    """A requested gate (parity, accuracy, full delegation, latency budget) did not hold; exit code 1."""

    exit_code = 1


class MissingExtraError(EdgewiseError):
    """A package that belongs to an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package} is not installed",
            expected=f"the extra [{extra}]",
            fix=f"Install it with: pip install 'edgewise[{extra}]'",
        )
