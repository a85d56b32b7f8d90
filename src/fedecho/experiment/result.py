"""What a run came to."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

from ..core.messages import Model
from ..runs.folder import RunFolder


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        algorithm: the method, e.g. "fedbuff+echo".
        seed: of the run.
        dataset: name.
        versions: model versions made.
        updates: updates accepted.
        virtual_time_s: the transport's clock at the end.
        wall_s: real seconds, set-up not included.
        final_accuracy: mean of the last five evaluations; None where nobody judges (on a live federation).
        best_accuracy: the best evaluation, likewise.
        slow_client_accuracy: mean of the last five evaluations on the slow clients' own test examples, or under their
            label distribution (see `fedecho.runs.schema.METRICS`); None where nobody is slow.
        fast_client_accuracy: likewise for the fast clients.
        server_s: seconds of work by kind, in all processes: train_s, infer_s (predictions on U), distill_s, aggregate_s
            (the rest of what the server does with an event), evaluate_s.
        profile_s: where this process's time went since it started the run or resumed it, by kind: setup_s, the kinds of
            `server_s`, records_s, wait_s (for workers), engine_s (all else: the clock, handing jobs over).
        peak_memory_mb: the process's largest resident size, MiB.
        model_sha256: of the final weights' bytes.
        run_dir: where the records are, or None.
        refused: updates refused.
        lost: tasks lost.
        final_perplexity: of a language model, mean of the last five evaluations; None of others.
        slow_client_perplexity: likewise on the slow clients' own test text.
        fast_client_perplexity: likewise on the fast clients'.
    """

    algorithm: str
    seed: int
    dataset: str
    versions: int
    updates: int
    virtual_time_s: float
    wall_s: float
    final_accuracy: float | None
    best_accuracy: float | None
    slow_client_accuracy: float | None
    fast_client_accuracy: float | None
    server_s: dict[str, float]
    peak_memory_mb: float
    model_sha256: str
    refused: int
    lost: int
    run_dir: str | None = None
    profile_s: dict[str, float] = dataclasses.field(default_factory=dict)
    final_perplexity: float | None = None
    slow_client_perplexity: float | None = None
    fast_client_perplexity: float | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> Result | None:
        """What a finished run's folder says of it; None while it is not finished."""
        summary = folder.summary()
        return None if summary is None else cls(**{**summary, "run_dir": str(folder.path)})

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return dataclasses.asdict(self)


def sha256(model: Model) -> str:
    """Of the weights' bytes."""
    return hashlib.sha256(model.weights.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
