"""FLGo's asynchronous simulator with its FedBuff, evaluation off.

Its virtual clock asks every client's state at each unit of time. Clients differ by a log-normal latency of some units.
It trains a job when it is dispatched; the run ends with the last job's training.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from work import BATCH, BUFFER, CONCURRENCY, LR, Done, Work, declare_torchvision

OPERATORS = declare_torchvision()

import flgo  # noqa: E402
import flgo.algorithm.fedbuff as fedbuff  # noqa: E402
from flgo.benchmark.toolkits.cv.classification import FromDatasetPipe  # noqa: E402
from flgo.benchmark.toolkits.partition import BasicPartitioner  # noqa: E402
from flgo.experiment.logger.simple_logger import SimpleLogger  # noqa: E402

# torch 2.13 refuses FLGo's data set without this method, and names this remedy.
FromDatasetPipe.TaskDataset.__getitems__ = lambda self, places: [self[place] for place in places]

CONFIG = """
import sys
sys.path.insert(0, {here!r})
import numpy as np, torch
from torch.utils.data import TensorDataset
from work import mlp
held = np.load({path!r})
train_data = TensorDataset(torch.from_numpy(held["inputs"]), torch.from_numpy(held["labels"]))
test_data = TensorDataset(torch.from_numpy(held["test_inputs"]), torch.from_numpy(held["test_labels"]))
def get_model(*args, **kwargs):
    return mlp()
"""


class Given(BasicPartitioner):
    """The split of the work."""

    def __init__(self, work: Work) -> None:
        self.work, self.num_clients = work, work.clients

    def __call__(self, data: object) -> list[list[int]]:
        ends = self.work.offsets.tolist()
        return [list(range(first, end)) for first, end in pairwise(ends)]


def main() -> None:
    work = Work()
    here = str(Path(__file__).resolve().parent)
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        sys.path.insert(0, temporary)
        Path("config.py").write_text(CONFIG.format(here=here, path=str(work.path.resolve())))
        benchmark = flgo.gen_benchmark_from_file("given", "config.py", target_path=".")
        made = importlib.import_module(benchmark)
        made.visualize = lambda *_: None  # a picture of the split takes minutes
        flgo.gen_task_by_(made, Given(work), task_path="task")
        option = {
            "num_rounds": work.jobs,
            "proportion": CONCURRENCY / work.clients,
            "num_epochs": 1,
            "batch_size": BATCH,
            "learning_rate": LR,
            "learning_rate_decay": 1.0,
            "train_holdout": 0.0,
            "eval_interval": -1,
            "responsiveness": "LN-10-10",
            "algo_para": [BUFFER / work.clients, 1.0],
            "no_log_console": True,
            "torch_num_threads": 1,
        }
        runner = flgo.init("task", fedbuff, option=option, Logger=SimpleLogger)
        for client in runner.clients:
            client.train = work.counted(client.train)
        work.watch_steps()
        work.start()
        with contextlib.suppress(Done):
            runner.run()
        work.stop()
        state = runner.model.state_dict()
    work.tell(
        dict(zip(("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), state.values(), strict=True))
    )


if __name__ == "__main__":
    main()
