"""The echo bank: the clients' most recent predictions on the unlabeled set."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Bank:
    """The echo bank: one row of predictions on U per client, kept until that client reports again.

    With P predictions on U (|U| for a classifier) of C classes:

    Attributes:
        rows: client to its logits z_i [P, C], or to the top k of them as `fedecho.core.topk` packs them; least recently
            heard first.
        versions: client to the server version its row's model started from.
        total: Σ_i w_i·v_i [P, C] float64 (v_i logits or probabilities), kept incrementally: a new row costs O(P·C)
            whatever the number of clients. float64 keeps it equal to the full sum over a long run. None where rows are
            packed: such a sum would be as large as what packing saves.
        mass: Σ_i w_i [P, 1] float64; likewise.
        priors: client to what that teacher expects on the whole, where the stage asks: as `prior_of` gives it.
    """

    rows: dict[int, Tensor] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    total: Tensor | None = None
    mass: Tensor | None = None
    priors: dict[int, Tensor] = field(default_factory=dict)
