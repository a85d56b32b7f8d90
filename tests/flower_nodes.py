"""Flower nodes in this process: a real `Grid` whose nodes are threads that run real ClientApps on digits."""

from __future__ import annotations

import copy
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor, nn

from fedecho.data.sources import load


class Net(nn.Module):
    """A classifier of digits [B, 1, 8, 8], with batch norm: buffers travel too."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 16)
        self.norm = nn.BatchNorm1d(16)
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(F.relu(self.norm(self.hidden(x.flatten(1)))))
        return logits


def first_arrays() -> ArrayRecord:
    """The same initial model each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # a user's own app draws as it likes
        return ArrayRecord(Net().state_dict())


def unlabeled(size: int = 60) -> Tensor:
    return load("digits").inputs[:size]


def part(number: int) -> tuple[Tensor, Tensor]:
    source = load("digits")
    rows = slice(100 + 80 * number, 180 + 80 * number)
    return source.inputs[rows], source.labels[rows]


def judge(version: int, arrays: ArrayRecord) -> MetricRecord:
    net = Net().eval()
    net.load_state_dict(arrays.to_torch_state_dict())
    source = load("digits")
    with torch.no_grad():
        right = net(source.test_inputs).argmax(1) == source.test_labels
    return MetricRecord({"accuracy": float(right.float().mean()), "loss": 0.5})


def make_app(mods: list[Any] | None = None, delay_s: Callable[[int], float] = lambda number: 0.0) -> ClientApp:
    """A ClientApp as it is written for Flower's FedAvg."""
    app = ClientApp(mods=mods or [])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        time.sleep(delay_s(number))
        net = Net()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        inputs, labels = part(number)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for rows in torch.arange(len(inputs)).split(20):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs[rows]), labels[rows])
            loss.backward()
            optimizer.step()
        metrics = MetricRecord({"train_loss": float(loss.detach()), "num-examples": len(inputs)})
        return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"eval_acc": 0.25, "num-examples": 10 + int(context.node_config["partition-id"])})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


ClientUpdate = Callable[[int, int, Message], "Message | None"]
"""(node, its how-many-th job, the reply) to what is sent instead; None sends nothing."""


class LocalGrid(Grid):
    """Flower's Grid over nodes in threads.

    Args:
        nodes: how many; their ids are 1000, 1001, …
        app: what they run.
        change: what becomes of replies on their way.
    """

    def __init__(
        self, nodes: int, app: ClientApp | None = None, change: ClientUpdate = lambda node, job, reply: reply
    ) -> None:
        self.app, self.change = app or make_app(), change
        self.present: list[int] = []
        self.sent: list[Message] = []
        self.broken = False
        self._work: dict[int, queue.Queue[Message]] = {}
        self._replies: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1  # who sends a message
        for number in range(nodes):
            self.join(number)

    def join(self, number: int) -> int:
        """A node comes, or comes back; its id."""
        node = 1000 + number
        if node not in self._work:
            self._work[node] = queue.Queue()
            threading.Thread(target=self._live, args=(node, number), daemon=True).start()
        self.present.append(node)
        return node

    def _live(self, node: int, number: int) -> None:
        context = Context(1, node, {"partition-id": number, "num-partitions": 9}, RecordDict(), {})
        jobs = 0
        while True:
            message = self._work[node].get()
            try:
                reply = self.app(message, context)
            except Exception as fault:
                reply = Message(Error(2, f"ClientApp: {fault}"), reply_to=message)
            changed = self.change(number, jobs, reply)
            jobs += 1
            if changed is not None:
                self._replies[message.metadata.message_id] = changed

    # -- Flower's interface

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        self._check()
        return list(self.present)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._check()
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
            self.sent.append(message)
            self._work[message.metadata.dst_node_id].put(copy.deepcopy(message))  # as the network does
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._check()
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise AssertionError("nobody here waits for all")

    def _check(self) -> None:
        if self.broken:
            raise ConnectionError("the SuperLink is down")
