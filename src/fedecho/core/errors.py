"""Everything fedecho raises on purpose.

    FedechoError
    ├── ConfigError       one or several faults in a configuration, an argument or a value (exit code 2)
    ├── DataError         a data set that cannot be had, is damaged, or cannot be split as asked (exit code 2)
    ├── MissingExtra      an optional dependency that is not installed; names the extra (exit code 2)
    ├── RecordError       a run folder that cannot be read, resumed or replayed (exit code 2)
    ├── Diverged          the server's model is not finite any more
    ├── Stalled           no event is left although the run is not done; says why (exit code 2)
    └── WorkerLost        worker processes that die again and again (exit code 2)

Each message says what is wrong, what was got, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class FedechoError(Exception):
    """The root of the tree: catch it to catch everything fedecho raises on purpose."""


class Fault(str):
    """One message of a `ConfigError`, with the exception that led to it, whose traceback `--debug` shows."""

    cause: BaseException

    def __new__(cls, text: str, cause: BaseException) -> Fault:
        fault = super().__new__(cls, text)
        fault.cause = cause
        return fault


class ConfigError(FedechoError):
    """One or several faults in a configuration.

    Args:
        faults: one message, or a sequence of messages; all are kept in `.faults`, one line each in `str(...)`.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        return type(self), (tuple(map(str, self.faults)),)  # it travels between processes, without causes


class DataError(FedechoError):
    """A data set that cannot be had, is damaged, or cannot be split as asked."""


class MissingExtra(FedechoError):
    """An optional dependency that is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        self.purpose, self.extra = purpose, extra
        super().__init__(f"{purpose} needs a package that is not installed; install it: pip install 'fedecho[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.purpose, self.extra)


class RecordError(FedechoError):
    """A run folder that cannot be read, resumed or replayed."""


class Diverged(FedechoError):
    """The server's model is not finite any more: a step size is too large."""


class Stalled(FedechoError):
    """No event is left although the run is not done."""


class WorkerLost(FedechoError):
    """Worker processes that die, and a job that cannot be computed for it."""


class Interrupted(FedechoError):
    """A run was asked to stop and did, after a checkpoint; `resume` continues it."""


class UnusedSettingWarning(UserWarning):
    """A setting that the user chose and that has no effect as the others are."""
