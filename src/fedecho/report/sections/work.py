"""The sections of what the server did: its stages, its seconds, and the size of what clients sent."""

from __future__ import annotations

from dataclasses import dataclass

from ..components import FigureCard, Grid, Section
from ..curves import Axis, MethodLines, curves
from ..data import Group
from ..figures import change_norms, seconds
from ..style import Figure


@dataclass(frozen=True)
class Quantity:
    """A number that stages record."""

    title: str
    axis: str
    caption: str


QUANTITIES = {
    "uncertainty": Quantity(
        "Uncertainty of the ensemble",
        "uncertainty h",
        "Mean normalised entropy h of the teacher on the unlabeled set U: 0 where the ensemble is certain, 1 where its "
        "prediction is uniform. An h that stays high late in a run suggests that U is unlike the clients' data.",
    ),
    "alpha": Quantity(
        "Weight of the soft label",
        "α",
        "Mean α = α_min + (α_max − α_min)·h: the more uncertain the ensemble, the more its soft label counts and the "
        "less its hard one.",
    ),
    "loss": Quantity("Distillation loss", "loss, nats", "Mean loss of a distillation's steps against its teacher."),
    "rows": Quantity(
        "Clients in the bank",
        "clients",
        "Clients whose predictions on the unlabeled set U the server holds; it starts empty.",
    ),
}
"""What is known of the numbers that stages record; others are drawn as recorded."""

MOST_QUANTITIES = 8


def stages(group: Group, prefix: str) -> Section | None:
    """What stages record after an aggregation, over updates."""
    names = dict.fromkeys(name for m in group.methods for one in m.events for name in one.stage_values)
    recorded = dict.fromkeys(name.partition(".")[2] for name in names)
    ordered = [
        *(name for name in QUANTITIES if name in recorded),
        *(name for name in recorded if name not in QUANTITIES),
    ]
    figures = []
    for place, name in enumerate(ordered[:MOST_QUANTITIES]):
        quantity = QUANTITIES.get(name) or Quantity(name.replace("_", " ").capitalize(), name, "As recorded.")
        figure_name = f"{prefix}stages-{name if name in QUANTITIES else place}"
        variants = {"": _over_updates(group, list(names), name, quantity)}
        figures.append(FigureCard(figure_name, quantity.title, quantity.caption, variants))
    if not figures:
        return None
    about = (
        "After an aggregation the clients' predictions on the unlabeled set U are distilled into the model; these "
        "figures show what that distillation recorded."
    )
    return Section(f"{prefix}echo", "Stages", about, [Grid(figures)])


def _over_updates(group: Group, names: list[str], name: str, quantity: Quantity) -> Figure:
    methods = []
    for method in group.methods:
        for stage in dict.fromkeys(one.partition(".")[0] for one in names):
            lines = {
                run.seed: one.stage_values[f"{stage}.{name}"]
                for run, one in zip(method.runs, method.events, strict=True)
                if f"{stage}.{name}" in one.stage_values
            }
            if lines:
                seeds = frozenset(run.seed for run in method.finished)
                methods.append(MethodLines(method.label, method.style, lines, seeds))
    drawn = curves(methods, "accepted updates", Axis(quantity.axis))
    if name in ("uncertainty", "alpha"):
        drawn["layout"]["yaxis"] |= {"range": [0, 1]}
        drawn["layout"].pop("annotations", None)  # they were placed for another range
    if name == "rows":
        drawn["layout"]["yaxis"] |= {"rangemode": "tozero"}
    return drawn


def work(group: Group, prefix: str) -> Section | None:
    """Seconds by kind of work, and norms of changes."""
    figures = []
    means: dict[str, dict[str, float]] = {}
    for method in group.methods:
        results = list(method.results.values())
        if results:
            kinds = dict.fromkeys(kind for result in results for kind in result.server_s)
            means[method.label] = {k: sum(r.server_s.get(k, 0.0) for r in results) / len(results) for k in kinds}
    if any(any(by_kind.values()) for by_kind in means.values()):
        simulated = " The clients' training would be theirs in a real federation; the rest is the server's."
        figures.append(
            FigureCard(
                f"{prefix}seconds",
                "Seconds by kind of work",
                f"Real seconds on the machine that {group.host}.{'' if group.live else simulated}",
                {"": seconds(means)},
            )
        )
    methods = [method for method in group.methods if any(len(one.norms) > 1 for one in method.events)]
    if methods:
        figures.append(
            FigureCard(
                f"{prefix}norms",
                "Norms of the clients' changes",
                "L2 norm of an accepted change, x_i minus the version it started from: thick the median, thin and "
                "dotted the largest, mean over seeds. A peak that stands alone is a client whose training diverged.",
                {"": change_norms(methods)},
            )
        )
    if not figures:
        return None
    about = "What the runs cost, and the size of what clients sent."
    return Section(f"{prefix}work", "Work and movement", about, [Grid(figures)])
