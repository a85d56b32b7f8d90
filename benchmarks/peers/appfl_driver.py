"""APPFL's virtual-time simulator with its FedBuff. Settings: `defaults`, and `fast`, which leaves its collections out.

It trains a job when it is dispatched; the run ends with the last job's training.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from work import BATCH, BUFFER, CONCURRENCY, LR, Done, Work, declare_torchvision

OPERATORS = declare_torchvision()

from appfl.agent import ClientAgent, ServerAgent  # noqa: E402
from appfl.vsim import AsyncSimDriver, ClientProfile  # noqa: E402

HERE = str(Path(__file__).resolve())


def main() -> None:
    work = Work()
    memory = {} if work.setting == "defaults" else {"optimize_memory": False}
    with tempfile.TemporaryDirectory() as logs:
        train = {
            "trainer": "VanillaTrainer",
            "mode": "epoch",
            "num_local_epochs": 1,
            "optim": "SGD",
            "optim_args": {"lr": LR},
            "train_batch_size": BATCH,
            "train_data_shuffle": True,
            "do_validation": False,
            "do_pre_validation": False,
            "device": "cpu",
            "loss_fn_path": HERE.replace("appfl_driver", "appfl_parts"),
            "loss_fn_name": "CrossEntropy",
            "metric_path": HERE.replace("appfl_driver", "appfl_parts"),
            "metric_name": "accuracy",
            **memory,
        }
        model = {"model_path": HERE.replace("appfl_driver", "appfl_parts"), "model_name": "build"}
        server = {
            "scheduler": "AsyncScheduler",
            "scheduler_kwargs": {"same_init_model": True, **memory},
            "aggregator": "FedBuffAggregator",
            "aggregator_kwargs": {
                "K": BUFFER,
                "alpha": 1.0,
                "staleness_fn": "polynomial",
                "staleness_fn_kwargs": {"a": 0.5},
                "client_weights_mode": "equal",
                **memory,
            },
            "device": "cpu",
            "num_clients": work.clients,
            "num_global_epochs": work.jobs,
            "logging_output_dirname": logs,
            **memory,
        }
        common = {"train_configs": train, "model_configs": model}
        made = OmegaConf.create({"client_configs": common, "server_configs": server})
        agent = ServerAgent(server_agent_config=made)
        clients = [client_agent(work, number, logs, memory, agent) for number in range(work.clients)]
        profiles = {
            client.get_id(): ClientProfile(compute_factor=(1.0, 1.0, 4.0)[number % 3])
            for number, client in enumerate(clients)
        }
        quiet = logging.getLogger("quiet")
        quiet.setLevel(logging.WARNING)
        driver = AsyncSimDriver(agent, clients, profiles, CONCURRENCY, quiet, base_step_time=0.01)
        for client in clients:
            client.train = work.counted(client.train)
        work.watch_steps()
        work.start()
        with contextlib.suppress(Done):
            driver.run()
        work.stop()
        work.tell(agent.get_parameters(serial_run=True))


def client_agent(work: Work, number: int, logs: str, memory: dict[str, Any], server: ServerAgent) -> ClientAgent:
    settings = {
        "client_id": str(number),
        "train_configs": {"logging_output_dirname": logs, "logging_output_filename": "client"},
        "data_configs": {
            "dataset_path": HERE.replace("appfl_driver", "appfl_parts"),
            "dataset_name": "data",
            "dataset_kwargs": {"path": str(work.path), "client": number},
        },
        **memory,
    }
    agent = ClientAgent(OmegaConf.create(settings))
    agent.load_config(server.get_client_configs())
    return agent


if __name__ == "__main__":
    main()
