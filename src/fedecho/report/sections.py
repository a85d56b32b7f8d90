"""The sections of the page, each a figure or a table of what the runs recorded."""

from __future__ import annotations

from collections.abc import Mapping

from .components import Parts, figure, grid, section
from .curves import Bundle, curves
from .data import ReportData
from .figures import change_norms, seconds
from .style import MethodStyle

REFINED = {
    "uncertainty": ("Uncertainty of the ensemble", "uncertainty h",
        "Mean normalised entropy h of the teacher on U: 0 where the ensemble is certain, 1 where it has no idea. Where "
        "soft labels are taught and it has none late in a run, U may be unlike the clients' data."),
    "alpha": ("Weight of the soft label", "α",
        "Mean α = α_min + (α_max − α_min)·h: the more uncertain the ensemble, the more its soft label counts and the "
        "less its hard one."),
    "loss": ("Distillation loss", "loss, nats", "Mean loss of a refinement's steps against its teacher."),
    "rows": ("Clients in the bank", "clients", "Clients whose predictions on U the server holds; it starts empty."),
}  # fmt: skip
"""What is known of the numbers that stages record: title, axis, caption."""


def stages(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    names = dict.fromkeys(name for m in study.methods for f in m.events for name in f.refined)
    quantities = dict.fromkeys(name.partition(".")[2] for name in names)
    made = []
    for quantity in [*(q for q in REFINED if q in quantities), *(q for q in quantities if q not in REFINED)][:8]:
        bundles = []
        for method in study.methods:
            for stage in dict.fromkeys(name.partition(".")[0] for name in names):
                lines = {
                    run.seed: f.refined[f"{stage}.{quantity}"]
                    for run, f in zip(method.runs, method.events, strict=True)
                    if f"{stage}.{quantity}" in f.refined
                }
                if lines:
                    bundles.append(Bundle(method.label, lines, frozenset(run.seed for run in method.finished)))
        title, axis, caption = REFINED.get(
            quantity, (quantity.replace("_", " ").capitalize(), quantity, "As recorded.")
        )
        drawn = curves(bundles, looks, "accepted updates", axis)
        if quantity in ("uncertainty", "alpha"):
            drawn["layout"]["yaxis"] |= {"range": [0, 1]}
        if quantity == "rows":
            drawn["layout"]["yaxis"] |= {"rangemode": "tozero"}
        parts.figures[f"stages-{quantity}"] = {"": drawn}
        made.append(figure(f"stages-{quantity}", title, caption))
    if not made:
        return ""
    about = (
        "After an aggregation the clients' predictions on the unlabeled set U are distilled into the model; here is "
        "what that saw and did."
    )
    return section("echo", "The echo", about, grid(made))


def work(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    made = []
    means: dict[str, dict[str, float]] = {}
    for method in study.methods:
        results = [run.result for run in method.finished if run.result is not None]
        if results:
            kinds = dict.fromkeys(kind for result in results for kind in result.server_s)
            means[method.label] = {k: sum(r.server_s.get(k, 0.0) for r in results) / len(results) for k in kinds}
    if means:
        parts.figures["seconds"] = {"": seconds(means)}
        made.append(
            figure(
                "seconds",
                "Where the seconds went",
                f"Real seconds on the machine that {study.host}."
                + " The clients' training would be theirs in a real federation; the rest is the server's."
                * any(not run.live for run in study.runs),
            )
        )
    told = {method.label: [f for f in method.events if len(f.norms) > 1] for method in study.methods}
    told = {label: found for label, found in told.items() if found}
    if told:
        parts.figures["norms"] = {"": change_norms(told, looks)}
        made.append(
            figure(
                "norms",
                "How far clients move the model",
                "L2 norm of an accepted change, x_i minus the version it started from: thick the median, thin and "
                "dotted the largest, mean over seeds. A peak that stands alone is a client whose training diverged.",
            )
        )
    if not made:
        return ""
    return section("work", "Work and movement", "What the runs cost, and the size of what clients sent.", grid(made))
