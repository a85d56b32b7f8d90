"""A sparse echo bank against a dense one: over TinyStories' vocabulary of 32,000 tokens, or a small one.

    python benchmarks/sparse_bank.py --out runs/sparse --seeds 3
    python benchmarks/sparse_bank.py --out runs/sparse --seeds 3 --model lstm --updates 200 --clients 20 --lr 2

`lstm` is trained from scratch on word pieces learnt on the plays, where a dense bank costs little.

First the teacher: clients' adapters are trained on a Shakespeare role each, predict on held-out text, and the ensemble
of their packed rows is compared with that of all their logits. Then whole runs, with a dense and a packed bank, seed by
seed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from fedecho import Config
from fedecho.core.messages import Request, Task
from fedecho.data import text
from fedecho.data.datasets.shakespeare import shakespeare
from fedecho.data.fetch import fetch
from fedecho.experiment.build import prepare
from fedecho.stages.bank import Bank
from fedecho.stages.compute import LOGITS, PredictionFormat
from fedecho.stages.echo import Echo
from fedecho.stages.losses import CLASSES
from fedecho.studies.jobs import Job, run_job
from fedecho.studies.statistics import mean_interval

HEADER = "   k   bytes   of dense    KL(p‖p_k)   |h − h_k|   argmax differs   mass kept"


def config(args: argparse.Namespace, top_k: int, seed: int = 0) -> Config:
    """A short run on roles of Shakespeare's plays."""
    small = args.model == "lstm"
    model: dict[str, Any] = {"name": "lstm"} if small else {"name": "tinystories", "rank": 8}
    tokens = {"tokenizer": args.tokenizer} if small else {}
    return Config.from_dict(
        {
            "experiment": {
                "seed": seed,
                "updates": args.updates,
                "eval_every": max(1, args.updates // 20) if small else args.updates,
            },
            "data": {
                "dataset": "shakespeare",
                "partition": "natural",
                "clients": args.clients,
                "length": 32 if small else 64,
                "max_examples": 48,
                "unlabeled_size": args.sequences,
                "test_size": 300 if small else 80,
                **tokens,
            },
            "model": model,
            "client": {"epochs": 1, "batch_size": 8, "lr": args.lr, "clip": 1.0},
            "server": {"concurrency": min(10, args.clients - 2), "buffer_size": 3},
            "algorithm": {"name": "fedbuff", "lr": 0.5 if small else 1.0},
            "stages": {
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
        task = Task(client, client, 0, 0.0, request=Request(predictions=LOGITS))
        rows.append(learner.train(task, learner.initial()).predictions)
    vocabulary, count = learner.classes, learner.prediction_count
    sizes = f"{LOGITS.bytes(vocabulary):,} bytes each"
    print(f"{args.clients} teachers, {count:,} predictions of {vocabulary:,} tokens; dense: {sizes}")
    for average in ("logits", "probabilities"):
        dense = Echo(average=average)
        p = dense.ensemble(bank_of(dense, rows), 0)
        entropy, hard = CLASSES.uncertainty(p), p.argmax(-1)
        print(f"\naverage of {average}, mean uncertainty {entropy.mean():.4f}\n{HEADER}")
        for k in ks:
            echo, size = Echo(average=average, top_k=k), PredictionFormat(top_k=k).bytes(vocabulary)
            q = echo.teach(bank_of(echo, rows), 0, torch.arange(count), vocabulary)
            kl = (p * (p.clamp(min=1e-30).log() - q.clamp(min=1e-30).log())).sum(-1).mean()
            off, differs = (entropy - CLASSES.uncertainty(q)).abs().mean(), (hard != q.argmax(-1)).float().mean()
            mass = torch.stack([row.softmax(-1).topk(k, -1).values.sum(-1).mean() for row in rows]).mean()
            share = f"1/{LOGITS.bytes(vocabulary) / size:.0f}"
            print(f"{k:4d} {size:7,} {share:>10} {kl:12.5f} {off:11.5f} {differs:16.2%} {mass:11.2%}", flush=True)


def bank_of(echo: Echo, rows: list[Tensor]) -> Bank:
    """A bank with a row a client."""
    bank = echo.init(len(rows))
    for client, row in enumerate(rows):
        bank = echo.put(bank, client, row, 0)
    return bank


def runs(args: argparse.Namespace, ks: list[int], out: Path) -> None:
    """Perplexity of whole runs, seed by seed. What is in `out` already is not run again."""
    names = {k: "dense" if k == 0 else "no stage" if k < 0 else f"k={k}" for k in (0, *ks, -1)}
    perplexities: dict[int, list[float]] = {k: [] for k in names}
    print(f"\n{args.updates} updates, average of {args.average}, step {args.distill_lr}; perplexity on held-out text")
    print("seed   bank       perplexity   against dense   seconds", flush=True)
    for seed in range(args.seeds):
        for k, name in names.items():
            settings = config(args, max(k, 0), seed)
            settings = settings if k >= 0 else replace(settings, stages=())
            result = run_job(Job(name, seed, settings, out / name.replace(" ", "_") / f"seed-{seed}"))
            perplexity = result.metrics["perplexity"].last_5_mean
            assert perplexity is not None
            perplexities[k].append(perplexity)
            apart = perplexities[k][-1] / perplexities[0][-1] - 1
            print(f"{seed:4d}   {name:8s} {perplexities[k][-1]:12.3f} {apart:+14.3%} {result.wall_s:10.0f}", flush=True)
    print(f"\nperplexity, and paired differences to the dense bank over {args.seeds} seeds ± half a 95 % interval")
    for k, name in names.items():
        relative = [one / dense - 1 for one, dense in zip(perplexities[k], perplexities[0], strict=True)]
        mean, half_width = mean_interval(relative)
        interval = "" if half_width is None else f" ± {half_width:.3%}"
        print(f"{name:8s} {fmean(perplexities[k]):9.3f} {mean:+9.3%}{interval}", flush=True)


def pieces(folder: Path, size: int) -> str:
    """A tokenizer of `size` pieces learnt on the plays (byte pairs), as a folder's name for `data.tokenizer`."""
    if not (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        plays = shakespeare(fetch("shakespeare"))
        assert isinstance(plays, text.Spoken)
        inner = Tokenizer(models.BPE(unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
        inner.train_from_iterator(
            plays.texts.values(), trainers.BpeTrainer(vocab_size=size, special_tokens=["<pad>", "<unk>"])
        )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")
        tokenizer.save_pretrained(folder)
    return f"hf:{folder}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tinystories", "lstm"), default="tinystories")
    parser.add_argument("--pieces", type=int, default=2000, help="the vocabulary of lstm")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--sequences", type=int, default=8, help="|U|, of 64 tokens each")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--distill-lr", type=float, default=0.05)
    parser.add_argument("--average", choices=("logits", "probabilities"), default="probabilities")
    parser.add_argument("--k", default="16,64,128,200")
    parser.add_argument("--only", choices=("teachers", "runs"), help="leave the other part out")
    parser.add_argument("--out", type=Path, required=True, help="runs are kept here, and continued from here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ks = [int(k) for k in args.k.split(",")]
    args.tokenizer = pieces(args.out.resolve() / f"pieces-{args.pieces}", args.pieces) if args.model == "lstm" else None
    if args.only != "runs":
        teachers(args, ks)
    if args.only != "teachers":
        runs(args, ks, args.out / f"{args.model} {args.average} {args.distill_lr} {args.updates}")


if __name__ == "__main__":
    main()
