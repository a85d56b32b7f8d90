"""The server. With `from flwr.serverapp.strategy import FedAvg` and `FedAvg()` below, it would wait for every round."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from fedecho.flower.strategy import Asynchronous

from .task import Net, images, judge, public

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    how = context.run_config

    def evaluate(version: int, arrays: ArrayRecord) -> MetricRecord:
        net = Net()
        net.load_state_dict(arrays.to_torch_state_dict())
        accuracy, loss = judge(net, images().test_inputs, images().test_labels)
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    strategy = Asynchronous(
        str(how["method"]),
        buffer_size=int(how["buffer-size"]),
        model=Net,
        unlabeled=public(int(how["unlabeled-size"])),
        run_dir=str(how["run-dir"]) or None,
        keep="all",
        name="fashion",
        seed=0,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=int(how["num-versions"]),
        evaluate_fn=evaluate,
    )
