"""Flower's ClientApp, in a module of its own: an actor imports it once and keeps the data."""

from __future__ import annotations

import os
import sys
from functools import cache

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from work import BATCH, LR, Work, mlp

app = ClientApp()


@cache
def held() -> Work:
    """The work, read once in each process."""
    sys.argv[1:] = os.environ["PEERS_WORK"].split("\n")
    return Work()


@app.train()
def train(message: Message, context: Context) -> Message:
    work, module = held(), mlp()
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    inputs, labels = work.client(int(context.node_config["partition-id"]))
    steps = 0
    for batch in torch.randperm(len(labels)).split(BATCH):
        optimizer.zero_grad()
        F.cross_entropy(module(inputs[batch]), labels[batch]).backward()
        optimizer.step()
        steps += 1
    told = MetricRecord({"num-examples": len(labels), "steps": steps})
    return Message(RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": told}), reply_to=message)
