"""fedecho: FedBuff in virtual time, no records, no evaluation; and, as setting `export`, the work for all."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from work import BATCH, BUFFER, CONCURRENCY, LR, Work

from fedecho.config.config import Config
from fedecho.core.messages import Event, LogEntry
from fedecho.executors.processes import Processes
from fedecho.experiment.build import prepare
from fedecho.server.loop import serve
from fedecho.simulation.transport import SimulatedTransport


def config(jobs: int, setting: str = "inline") -> Config:
    """50 clients with 1,000 images each, dealt at random."""
    workers = {"processes": {"workers": 2}}.get(setting, {})
    tables: dict[str, Any] = {
        "experiment": {"name": "peers", "updates": jobs},
        "data": {
            "dataset": "fashion_mnist",
            "clients": 50,
            "partition": "iid",
            "unlabeled": "noise",
            "unlabeled_size": 1,
            "validation": 10000,
        },
        "model": {"name": "mlp", "hidden": [512, 256]},
        "client": {"epochs": 1, "batch_size": BATCH, "lr": LR},
        "server": {"concurrency": CONCURRENCY, "buffer_size": BUFFER},
        "algorithm": {"name": "fedbuff", "lr": 0.3},
        "population": {"name": "large", "class_counts": [29, 14, 7]},
        "executor": {"name": setting, **workers},
    }
    return Config.from_dict(tables)


def export(path: str) -> None:
    """Write the split that every driver reads."""
    data = prepare(config(1)).data
    np.savez(
        path,
        offsets=np.asarray(data.offsets),
        inputs=data.inputs.flatten(1).numpy(),
        labels=data.labels.numpy(),
        test_inputs=data.test[0].flatten(1).numpy(),
        test_labels=data.test[1].numpy(),
    )


class Count:
    """A journal that counts jobs and steps, and keeps nothing."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: list[LogEntry]) -> None:
        for fact in facts:
            if fact.kind == "accept" and fact.client is not None:
                held = int(self.work.offsets[fact.client + 1] - self.work.offsets[fact.client])
                self.work.trained += 1
                self.work.steps += math.ceil(held / BATCH)


def main() -> None:
    if sys.argv[3] == "export":
        return export(sys.argv[1])
    work = Work()
    setup = prepare(config(work.jobs, work.setting))
    same = np.array_equal(setup.data.offsets, work.offsets) and np.array_equal(
        setup.data.inputs.flatten(1).numpy(), work.inputs.numpy()
    )
    if not same:
        raise SystemExit("the exported split is not that of the run: remove it, and export again")
    if isinstance(setup.executor, Processes):
        setup.executor.start()
    try:
        work.start()
        serve(setup.server, SimulatedTransport(setup.population, setup.executor), Count(work))
        work.stop()
    finally:
        setup.executor.close()
    exported = setup.learner.state_dict(setup.server.model)
    work.tell(
        dict(zip(("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), exported.values(), strict=True))
    )


if __name__ == "__main__":
    main()
