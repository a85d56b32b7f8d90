"""The journal of a run on a live federation."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.messages import Event, LogEntry
from ..runs.folder import RunFolder
from .observer import Observer
from .recorder import Recorder
from .setup import Setup


class LiveRecorder(Recorder):
    """The journal of a run on a live federation, where nothing can be computed again.

    An event is on disk, with what the client sent, before it counts. What a server that was killed had heard is heard
    again, and not written twice.
    """

    def __init__(self, setup: Setup, folder: RunFolder | None, observer: Observer | None = None) -> None:
        super().__init__(setup, folder, observer)
        self._heard = 0 if folder is None else folder.heard

    def _keep(self, event: Event) -> None:
        if self.folder is not None and self.seq > self._heard:
            self.folder.hear(self.seq, event)

    def _continued_by(self, folder: RunFolder) -> str:
        return f"its ServerApp, started again on {folder.path},"

    def _due(self, log: Sequence[LogEntry]) -> bool:
        every = self.setup.config.transport.evaluate_every
        return any(entry.kind == "aggregate" and (entry.version or 0) % every == 0 for entry in log)

    def _forget_after(self, seq: int) -> None:
        assert self.folder is not None
        self.folder.forget_after(seq, inbox=False)

    def checkpoint(self) -> None:
        if self.setup.server.done:  # the last one stays where it is, for a replay to have something to compute again
            return
        super().checkpoint()
        assert self.folder is not None
        if self.setup.config.records.keep == "checkpoint":  # two are there, should the last one be damaged
            self.folder.drop_updates(min(int(path.stem.split("-")[1]) for path in self.folder.checkpoints()))

    def finish(self) -> None:
        """The run is over: its last checkpoint and what came after it stay, for a replay."""
