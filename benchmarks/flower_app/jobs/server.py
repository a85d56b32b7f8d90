"""Two servers for the same jobs: the least that Flower's messages allow, and fedecho's."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedecho.flower.strategies import FedBuff

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    how = context.run_config
    arrays = ArrayRecord({"weights": Array(np.zeros(int(how["numbers"]), np.float32))})
    while len(list(grid.get_node_ids())) < 4:
        time.sleep(0.5)
    serve = bare if how["server"] == "bare" else fedbuff
    began, cpu = time.perf_counter(), time.process_time()
    serve(grid, arrays, int(how["updates"]))
    told = {"wall_s": time.perf_counter() - began, "server_cpu_s": time.process_time() - cpu}
    Path(str(how["out"])).write_text(json.dumps(told))


def bare(grid: Grid, arrays: ArrayRecord, updates: int) -> None:
    """Every node always has one message; whatever answers there are, are asked for ten times a second."""

    def send(node: int) -> str:
        content = RecordDict({"arrays": arrays, "config": ConfigRecord()})
        (sent,) = grid.push_messages([Message(content, node, MessageType.TRAIN)])
        return sent

    waiting = {send(node): node for node in grid.get_node_ids()}
    done = 0
    while done < updates:
        time.sleep(0.1)
        for reply in list(grid.pull_messages(list(waiting))):
            done += 1
            waiting[send(waiting.pop(reply.metadata.reply_to_message_id))] = reply.metadata.src_node_id


def fedbuff(grid: Grid, arrays: ArrayRecord, updates: int) -> None:
    FedBuff(buffer_size=4).start(grid, arrays, num_rounds=updates // 4)
