"""Flower's simulation runtime: FedAvg, five of 50 nodes a round, one Ray actor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = str(HERE)
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flower_parts import app, held  # noqa: E402
from flwr.app import ArrayRecord, Context  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402
from work import BUFFER, Work, mlp  # noqa: E402

os.environ["PEERS_WORK"] = "\n".join(sys.argv[1:4])


class Timed(FedAvg):
    """FedAvg that counts the jobs, and begins to count with its second round: the first starts Ray's actor."""

    work: Work

    def configure_train(self, server_round: int, *args: Any) -> Any:
        if server_round == 2:
            self.work.start()
        return super().configure_train(server_round, *args)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        replies = list(replies)
        if server_round > 1:
            self.work.trained += len(replies)
            self.work.steps += sum(int(reply.content["metrics"]["steps"]) for reply in replies)
        return super().aggregate_train(server_round, replies)


def main() -> None:
    work = held()
    server, final = ServerApp(), {}

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        how = {"fraction_train": BUFFER / work.clients, "fraction_evaluate": 0.0, "min_train_nodes": BUFFER}
        strategy = Timed(**how, min_available_nodes=work.clients)
        strategy.work = work
        result = strategy.start(grid, ArrayRecord(mlp().state_dict()), num_rounds=1 + work.jobs // BUFFER)
        work.stop()
        final.update(result.arrays.to_torch_state_dict())

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1}}
    run_simulation(server, app, work.clients, backend_config=backend)
    work.tell(final)


if __name__ == "__main__":
    main()
