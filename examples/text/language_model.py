"""A small character model of Shakespeare's roles, trained from scratch, and what it writes as it learns.

    python examples/text/language_model.py runs/shakespeare

Twenty roles are clients; the slow ones are of the same play. The folder is kept: `fedecho report` makes a page of it.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import fedecho
from fedecho import Config
from fedecho.runs.folder import RunFolder

CONFIG = Config.from_dict(
    {
        "experiment": {"updates": 200, "eval_every": 20, "continuations": 2},
        "data": {
            "dataset": "shakespeare",
            "clients": 20,
            "partition": "natural_coupled",
            "length": 32,  # characters of an example
            "max_examples": 60,
            "unlabeled_size": 24,  # texts that are everybody's: each client predicts on them, character by character
            "test_size": 200,
        },
        "model": {"name": "lstm"},
        "client": {"epochs": 1, "batch_size": 10, "lr": 2.0, "clip": 1.0},
        "server": {"concurrency": 10, "buffer_size": 4},
        "algorithm": {"name": "fedbuff", "lr": 0.5},
        "stages": {"name": "balanced_echo", "target": "mean", "lr": 0.3},  # letters are not equally frequent
        "population": {"name": "large", "class_counts": [11, 6, 3]},
    }
)


def main() -> None:
    folder = Path(sys.argv[1])
    result = fedecho.run(CONFIG, folder)
    print(f"perplexity {result.final_perplexity:.2f}, on the slow roles' text {result.slow_client_perplexity:.2f}")
    with contextlib.closing(RunFolder.open(folder)) as records:
        said = records.continuations()
    first = said[0]["prompt"]
    for row in said:
        if row["prompt"] == first:
            print(f"{row['updates']:4d} updates: {row['prompt']!r} → {row['text']!r}")


if __name__ == "__main__":
    main()
