"""A run's metrics for TensorBoard: a copy of what the records hold, written as the run goes.

The step of every scalar is the number of accepted updates. After a resume what was written past the checkpoint is
purged and written again, so no step comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import MissingExtra

FOLDER = "tensorboard"
"""In the run folder."""


def require() -> None:
    """See that TensorBoard is there, before anything is computed.

    Raises:
        MissingExtra: when it is not.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtra("[records] tensorboard = true", "tensorboard") from None


class TensorBoardSink:
    """Writes scalars into `folder`.

    Args:
        folder: for event files, e.g. RUN/tensorboard.
        purge_step: what is there already from this step on is no longer valid; None for a new run.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        require()
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import

        _wait_for_a_second_of_its_own(folder)
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def evaluated(self, row: Mapping[str, Any]) -> None:
        """One evaluation row, with whatever metrics it has."""
        self._put("metrics", row, int(row["updates"]))
        self._writer.flush()

    def refined(self, detail: Mapping[str, Any], updates: int) -> None:
        """What a stage recorded after an aggregation."""
        self._put(f"stages/{detail.get('stage', 'stage')}", detail, updates)

    def again(self, rows: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]], step: int) -> None:
        """Write what was purged although it holds: rows and events up to a checkpoint, from `step` on."""
        for row in rows:
            if row["updates"] >= step:
                self.evaluated(row)
        updates = 0
        for event in events:
            updates += event["kind"] == "accept"
            if event["kind"] == "stage" and updates >= step:
                self.refined(event["detail"], updates)

    def close(self) -> None:
        self._writer.close()

    def _put(self, group: str, values: Mapping[str, Any], step: int) -> None:
        now = time.time()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, step, now)


def _wait_for_a_second_of_its_own(folder: Path) -> None:
    """TensorBoard reads a folder's files in the order of their names, which begin with the second they were made in: of
    two of one second, the later may come first, and would be purged by the earlier."""
    seconds = [file.name.split(".")[3] for file in folder.glob("events.out.tfevents.*")]
    latest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    while int(time.time()) == latest:
        time.sleep(0.05)
