"""Banks and distributions by hand, for the tests of several stages."""

from __future__ import annotations

import math

import torch

from fedecho.stages.bank import Bank
from fedecho.stages.bank_ensemble import BankEnsemble


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    e = [math.exp(v / temperature) for v in z]
    return [v / sum(e) for v in e]


def entropy(p: list[float]) -> float:
    return -sum(v * math.log(v) for v in p if v > 0) / math.log(len(p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bank_of(echo: BankEnsemble, rows: dict[int, torch.Tensor], versions: dict[int, int] | None = None) -> Bank:
    bank = echo.init(10)
    for client, row in rows.items():
        bank = echo.put(bank, client, row, (versions or {}).get(client, 0))
    return bank


def weighted(weights: list[float], values: list[list[float]]) -> list[float]:
    return [sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights) for c in range(3)]
