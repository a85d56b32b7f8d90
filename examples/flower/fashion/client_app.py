"""The client: what any FedAvg client is. Only the mod knows fedecho, and plain rules do not need it."""

from __future__ import annotations

import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedecho.flower.mod import client_mod

from .task import Net, judge, partition_of, train

app = ClientApp(mods=[client_mod()])


@app.train()
def fit(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    number, partitions = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    how = context.run_config
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    inputs, labels = partition_of(number, partitions)
    size = int(how["max-examples"]) or len(inputs)
    if number == partitions - 1:
        time.sleep(float(how["straggler-s"]))
    loss = train(net, inputs[:size], labels[:size], int(how["epochs"]), int(how["batch-size"]), float(how["lr"]))
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(inputs[:size])})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    number, partitions = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    inputs, labels = partition_of(number, partitions)
    accuracy, loss = judge(net, inputs, labels)
    metrics = MetricRecord({"eval_acc": accuracy, "eval_loss": loss, "num-examples": len(inputs)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
