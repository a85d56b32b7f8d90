"""A sparse echo bank against a dense one, over TinyStories' vocabulary of 32,000 tokens.

    python benchmarks/sparse_bank.py [--clients 6] [--sequences 8] [--updates 12] [--k 4,16,64,200]

First the teacher: clients' adapters are trained on a Shakespeare role each, predict on held-out text, and the ensemble
of their packed rows is compared with that of all their logits. Then whole runs, with a dense and a packed bank, seed by
seed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

import fedecho
from fedecho import Config
from fedecho.assembly import prepare
from fedecho.messages import Task
from fedecho.refine.base import LOGITS, Form
from fedecho.refine.echo import Echo, uncertainty


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
            "refine": {"name": "echo", "top_k": top_k, "steps": 5, "batch_size": 4, "lr": args.distill_lr},
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
    dense = Echo()
    bank = dense.init(args.clients)
    for client, row in enumerate(rows):
        bank = dense.put(bank, client, row, 0)
    p = dense.ensemble(bank, 0)
    entropy, hard = uncertainty(p), p.argmax(-1)
    print(
        f"{args.clients} teachers, {count:,} predictions of {vocabulary:,} tokens; mean uncertainty {entropy.mean():.4f}\n"
        f"dense: {LOGITS.bytes(vocabulary):,} bytes a prediction\n\n"
        "   k   bytes   of dense    KL(p‖p_k)   |h − h_k|   argmax differs   mass kept"
    )
    for k in ks:
        echo, packed = Echo(top_k=k), Form(top_k=k)
        own = echo.init(args.clients)
        for client, row in enumerate(rows):
            own = echo.put(own, client, row, 0)
        q = echo.teach(own, 0, torch.arange(count), vocabulary)
        kl = (p * (p.clamp(min=1e-30).log() - q.clamp(min=1e-30).log())).sum(-1).mean()
        kept = torch.stack([row.softmax(-1).topk(k, -1).values.sum(-1).mean() for row in rows]).mean()
        size = packed.bytes(vocabulary)
        print(
            f"{k:4d} {size:7,}   1/{LOGITS.bytes(vocabulary) / size:<7.0f} {kl:11.5f} {(entropy - uncertainty(q)).abs().mean():11.5f}"
            f" {(hard != q.argmax(-1)).float().mean():13.2%} {kept:13.2%}",
            flush=True,
        )


def runs(args: argparse.Namespace, ks: list[int]) -> None:
    """Perplexity of whole runs."""
    print(f"\n{args.updates} updates, perplexity on the roles' own held-out text\nseed   bank     perplexity   against dense   seconds")
    for seed in range(args.seeds):
        exact = 0.0
        for k in (0, *ks):
            began = time.perf_counter()
            settings = config(args, k, seed)
            if k < 0:
                settings = replace(settings, refine=())
            found = fedecho.run(settings).final_perplexity or 0.0
            exact = found if k == 0 else exact
            name = "dense" if k == 0 else "none" if k < 0 else f"k={k}"
            print(f"{seed:4d}   {name:6s} {found:12.3f} {found / exact - 1:+14.3%} {time.perf_counter() - began:10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--sequences", type=int, default=8, help="|U|, of 64 tokens each")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--distill-lr", type=float, default=0.05)
    parser.add_argument("--k", default="4,16,64,200")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ks = [int(k) for k in args.k.split(",")]
    teachers(args, ks)
    runs(args, [k for k in ks if k in (16, 64)] + [-1])


if __name__ == "__main__":
    main()
