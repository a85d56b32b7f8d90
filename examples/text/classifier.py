"""BBC News, five sections, on the features of a frozen encoder: FedBuff and FedEcho, seed by seed.

    python examples/text/classifier.py

The features of 2,127 stories are computed once, a minute or two of one core, and kept in the cache.
"""

from __future__ import annotations

from statistics import fmean

import fedecho
from fedecho import Config

TABLES = {
    "experiment": {"updates": 300, "eval_every": 20},
    "data": {
        "dataset": "bbc_news",
        "features": "minilm",  # what the encoder makes of a text, instead of its tokens
        "length": 64,  # tokens of a story that the encoder reads
        "clients": 20,
        "partition": "dirichlet_mix",
        "alpha": 0.1,
        "unlabeled": "held_out",
        "unlabeled_size": 200,
    },
    "model": {"name": "mlp", "hidden": [32]},
    "client": {"epochs": 2, "batch_size": 10, "lr": 0.02},
    "server": {"concurrency": 10, "buffer_size": 4},
    "algorithm": {"name": "fedbuff", "lr": 0.5},
    "population": {"name": "large", "class_counts": [11, 6, 3]},
}
ECHO = {"name": "echo", "lr": 0.05}


def main() -> None:
    for name, stages in (("fedbuff", []), ("fedecho", [ECHO])):
        results = []
        for seed in range(3):
            experiment = {**TABLES["experiment"], "seed": seed}
            config = Config.from_dict({**TABLES, "experiment": experiment, "stages": stages})
            results.append(fedecho.run(config))
        everybody = fmean(result.final_accuracy or 0.0 for result in results)
        slow = fmean(result.slow_client_accuracy or 0.0 for result in results)
        print(f"{name}: accuracy {everybody:.3f}, on what slow clients hold {slow:.3f}, 3 seeds")


if __name__ == "__main__":
    main()
