"""A sparse echo bank against a dense one, over TinyStories' vocabulary of 32,000 tokens.

    python benchmarks/sparse_bank.py [--clients 6] [--sequences 8] [--updates 12] [--k 4,16,64,200]

First the teacher: clients' adapters are trained on a Shakespeare role each, predict on held-out text, and the ensemble
of their packed rows is compared with that of all their logits. Then whole runs, with a dense and a packed bank, seed by
seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

import fedecho
from fedecho import Config
from fedecho.assembly import Setup, prepare
from fedecho.messages import Task
from fedecho.refine.base import LOGITS, Form
from fedecho.refine.echo import Bank, Echo, uncertainty

HEADER = "   k   bytes   of dense    KL(p‖p_k)   |h − h_k|   argmax differs   mass kept"


def config(args: argparse.Namespace, top_k: int, seed: int = 0) -> Config:
    """A short run on roles of Shakespeare's plays."""
    return Config.from_dict(
        {
            "experiment": {"seed": seed, "updates": args.updates, "eval_every": args.updates},
            "data": {
                "dataset": "shakespeare",
                "partition": "natural",
                "clients": args.clients,
                "length": 64,
                "max_examples": 48,
                "unlabeled_size": args.sequences,
                "test_size": 80,
            },
            "model": {"name": "tinystories", "rank": 8},
            "client": {"epochs": 1, "batch_size": 8, "lr": args.lr, "clip": 1.0},
            "server": {"concurrency": 4, "buffer_size": 3},
            "refine": {
                "name": "echo",
                "top_k": top_k,
                "average": args.average,
                "steps": 5,
                "batch_size": 4,
                "lr": args.distill_lr,
            },
        }
    )


def teachers(args: argparse.Namespace, ks: list[int]) -> None:
    """Bytes, and how far the packed ensemble is from the exact one, against k."""
    setup = prepare(config(args, 0))
    setup.close()
    learner = setup.learner
    rows = []
    for client in range(args.clients):
        task = Task(client, client, 0, 0.0, {"predict": 1.0})
        rows.append(learner.train(task, learner.initial()).predictions)
    vocabulary, count = learner.classes, learner.predictions
    sizes = f"{LOGITS.bytes(vocabulary):,} bytes each"
    print(f"{args.clients} teachers, {count:,} predictions of {vocabulary:,} tokens; dense: {sizes}")
    for average in ("logits", "probabilities"):
        dense = Echo(average=average)
        p = dense.ensemble(bank_of(dense, rows), 0)
        entropy, hard = uncertainty(p), p.argmax(-1)
        print(f"\naverage of {average}, mean uncertainty {entropy.mean():.4f}\n{HEADER}")
        for k in ks:
            echo, size = Echo(average=average, top_k=k), Form(top_k=k).bytes(vocabulary)
            q = echo.teach(bank_of(echo, rows), 0, torch.arange(count), vocabulary)
            kl = (p * (p.clamp(min=1e-30).log() - q.clamp(min=1e-30).log())).sum(-1).mean()
            off, differs = (entropy - uncertainty(q)).abs().mean(), (hard != q.argmax(-1)).float().mean()
            kept = torch.stack([row.softmax(-1).topk(k, -1).values.sum(-1).mean() for row in rows]).mean()
            share = f"1/{LOGITS.bytes(vocabulary) / size:.0f}"
            print(f"{k:4d} {size:7,} {share:>10} {kl:12.5f} {off:11.5f} {differs:16.2%} {kept:11.2%}", flush=True)


def bank_of(echo: Echo, rows: list[Tensor]) -> Bank:
    """A bank with a row a client."""
    bank = echo.init(len(rows))
    for client, row in enumerate(rows):
        bank = echo.put(bank, client, row, 0)
    return bank


class Last:
    """An observer that remembers the last evaluation."""

    perplexity = 0.0

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None: ...

    def evaluated(self, row: Mapping[str, float]) -> None:
        self.perplexity = row["perplexity"]


def runs(args: argparse.Namespace, ks: list[int]) -> None:
    """Perplexity of whole runs."""
    print(f"\n{args.updates} updates, average of {args.average}; perplexity on the roles' own held-out text")
    print("seed   bank     perplexity   against dense   seconds")
    for seed in range(args.seeds):
        exact = 0.0
        for k in (0, *ks):
            began, last = time.perf_counter(), Last()
            settings = config(args, max(k, 0), seed)
            fedecho.run(settings if k >= 0 else replace(settings, refine=()), observer=last)
            exact = last.perplexity if k == 0 else exact
            name = "dense" if k == 0 else "none" if k < 0 else f"k={k}"
            seconds = time.perf_counter() - began
            apart = last.perplexity / exact - 1
            print(f"{seed:4d}   {name:6s} {last.perplexity:12.3f} {apart:+14.3%} {seconds:10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--sequences", type=int, default=8, help="|U|, of 64 tokens each")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--distill-lr", type=float, default=0.05)
    parser.add_argument("--average", choices=("logits", "probabilities"), default="probabilities")
    parser.add_argument("--k", default="4,16,64,200")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ks = [int(k) for k in args.k.split(",")]
    teachers(args, ks)
    runs(args, [k for k in ks if k in (16, 64)] + [-1])


if __name__ == "__main__":
    main()
