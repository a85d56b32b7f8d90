"""Calling the command line, and the files that its tests use."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from fedecho.cli.main import main

Captured = pytest.CaptureFixture[str]

TEXT = """
[experiment]
updates = 40
eval_every = 10
[data]
clients = 10
unlabeled_size = 50
[model]
hidden = [8]
[client]
epochs = 1
[server]
concurrency = 5
buffer_size = 3
[population]
name = "mild"
class_counts = [5, 3, 2]
[variants.gentle]
method = "fedecho"
stages.lr = 0.01
"""

OWN = """
from dataclasses import dataclass
import torch
from fedecho.algorithms.fedbuff import FedBuff

print("importing my module")

def stripes():
    print("making my data")
    x = torch.linspace(-1, 1, 240).reshape(120, 2)
    y = torch.arange(120) % 3
    return x[:90], y[:90], x[90:], y[90:]

class Net(torch.nn.Module):
    def __init__(self, shape, classes, width=4):
        super().__init__()
        print("making my model")
        self.layers = torch.nn.Sequential(torch.nn.Linear(shape[0], width), torch.nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)

@dataclass(frozen=True)
class Half(FedBuff):
    name = "half"

    def aggregate(self, state, weights, scale):
        return super().aggregate(state, weights, scale / 2)

broken = 3
"""

BROKEN = "raise RuntimeError('my module is broken')\n"


def call(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `main`."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as left:  # argparse's way
        code = int(left.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", "import sys; from fedecho.cli.main import main; sys.exit(main())"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
    }  # as the installed command: no "" in path
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([*command, *arguments], **{**pipes, **options})
