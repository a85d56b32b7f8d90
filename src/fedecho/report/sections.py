"""The sections of the page, each a figure or a table of what the runs recorded."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..algorithms.base import Algorithm
from ..analysis import Row, Run, Spread
from ..refine.base import Stage
from . import facts, figures
from .figures import Bundle, Figure, Look
from .pieces import Parts, card, escaped, figure, folded, grid, section, switch
from .study import Method, Study
from .tables import Cell, Table, digits, plus_minus

MEASURES = {
    "perplexity": "Perplexity",
    "slow_client_perplexity": "Perplexity, slow clients",
    "fast_client_perplexity": "Perplexity, fast clients",
    "accuracy": "Accuracy",
    "slow_client_accuracy": "Accuracy, slow clients",
    "fast_client_accuracy": "Accuracy, fast clients",
    "loss": "Loss",
    "train_loss": "Clients' training loss",
}
"""What the first two figures can show; of a language model its perplexity first."""

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


# -- results -----------------------------------------------------------------------------------------------------------


def results(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    if not study.ranked:
        return ""
    places = {method.label: look.place for method, look in zip(study.methods, looks.values(), strict=True)}
    tiles = []
    for method, final in study.ranked[:6]:
        about = f"best {100 * method.row.best.mean:.1f}" if method.row.best else ""
        if method.row.slow is not None:
            about += f" · slow clients {100 * method.row.slow.mean:.1f}"
        spread = f" <small>± {100 * final.std:.1f} %</small>" if final.n > 1 else " <small>%</small>"
        tiles.append(
            f'<li class="tile" style="border-top-color: var(--m{looks[method.label].place % 8})">'
            f"<b>{escaped(method.label)}</b>"
            f'<div class="big">{100 * final.mean:.1f}{spread}</div><span>{escaped(about)}</span></li>'
        )
    text = f'<ul class="tiles">{"".join(tiles)}</ul>'
    text += card(_comparison(study, places), parts, _comparison_note(study))
    about = (
        "Final accuracy: the mean of a run's last five evaluations; mean ± sample standard deviation over seeds, in "
        "percent."
    )
    return section("results", "Results", about, text)


def details(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    if not study.ranked:
        return ""
    places = {label: look.place for label, look in looks.items()}
    target, text = f"{100 * study.table.target:g} %", ""
    text += card(
        _cost(study, places),
        parts,
        f"To {target}: at the first evaluation that reaches it, over the seeds that do (how many, where not all). "
        f"Seconds and memory are of the machine that {study.host}; the server's: predictions on U, distillation, "
        "aggregation.",
    )
    if len(study.ranked) > 2:
        text += card(
            _pairs(study, places),
            parts,
            "Row minus column, in points of final accuracy: mean ± standard error over the seeds that both have. "
            "▲ ahead, ▼ behind, ≈ a tie: below two standard errors.",
        )
    about = "How soon each method was good, what that took, and what the differences are worth."
    return section("detail", "In detail", about, text)


@dataclass(frozen=True)
class Column:
    """A number of every row: `wanted` says which is best ("high", "low", or "" for neither), `places` its digits."""

    name: str
    value: Callable[[Row], Spread | None]
    scale: float = 1.0
    wanted: str = ""
    places: int | None = None
    of_target: bool = False


def _numbers(table_id: str, about: str, rows: list[Row], columns: list[Column], looks: dict[str, int]) -> Table:
    """Methods × columns; columns that no method has are left out, the best mean of several is stressed."""
    columns = [column for column in columns if any(column.value(row) for row in rows)]
    cells: list[list[Cell]] = [[Cell(row.label)] for row in rows]
    for column in columns:
        spreads = [column.value(row) for row in rows]
        places = digits(spreads, column.scale) if column.places is None else column.places
        means = [spread.mean for spread in spreads if spread is not None]
        top = max(means) if column.wanted == "high" else min(means)
        for line, row, spread in zip(cells, rows, spreads, strict=True):
            text = plus_minus(spread, places, column.scale)
            n = row.final.n if row.final is not None else 0
            partly = column.of_target and row.reached < n
            best = len(rows) > 1 and column.wanted and spread is not None and spread.mean == top and not partly
            line.append(Cell(f"{text} ({row.reached} of {n})" if partly else text, "best" if best else ""))
    return Table(table_id, about, ["method", *(column.name for column in columns)], cells, looks=looks)


def _comparison(study: Study, places: dict[str, int]) -> Table:
    rows = [method.row for method in study.methods if method.row.final is not None]
    columns = [
        Column("final accuracy, %", lambda row: row.final, 100.0, "high"),
        Column("best, %", lambda row: row.best, 100.0, "high"),
        Column("slow clients, %", lambda row: row.slow, 100.0, "high"),
        Column("fast clients, %", lambda row: row.fast, 100.0, "high"),
        Column("mean over time, %", lambda row: row.area, 100.0, "high"),
        Column("perplexity", lambda row: row.perplexity, 1.0, "low"),
        Column("slow clients' perplexity", lambda row: row.slow_perplexity, 1.0, "low"),
        Column("fast clients' perplexity", lambda row: row.fast_perplexity, 1.0, "low"),
    ]
    made = _numbers("t-comparison", "Comparison" if len(rows) > 1 else "Accuracy", rows, columns, places)
    if len(rows) < 2:
        return made
    reference = study.table.reference
    cells = []
    for line, row in zip(made.rows, rows, strict=True):  # next to what they judge
        stress = {"ahead": "good", "behind": "bad"}.get(row.verdict, "soft")
        name = row.verdict or ("reference" if row.label == reference else "–")
        cells.append(
            [*line[:2], Cell("–" if row.difference is None else _gap(row.difference)), Cell(name, stress), *line[2:]]
        )
    header = [*made.header[:2], f"points to {reference}", "verdict", *made.header[2:]]
    text = {3}
    if any(row.perplexity_difference is not None for row in rows):
        for line, row in zip(cells, rows, strict=True):
            line += _perplexity_gap(row, reference)
        text.add(len(header) + 1)
        header += [f"perplexity to {reference}", "verdict, perplexity"]
    return replace(made, header=header, rows=cells, text_columns=frozenset(text))


def _perplexity_gap(row: Row, reference: str) -> list[Cell]:
    """The difference in perplexity to the reference's, and what it is worth."""
    gap = row.perplexity_difference
    if gap is None:
        return [Cell("–"), Cell("reference" if row.label == reference else "–", "soft")]
    error = f" ± {gap.standard_error:.2f}" if gap.n > 1 else ""
    verdict = gap.judged(lower=True)
    stress = {"ahead": "good", "behind": "bad"}.get(verdict, "soft")
    return [Cell(f"{gap.mean:+.2f}{error}".replace("-", "−")), Cell(verdict, stress)]


def _comparison_note(study: Study) -> str:
    told = [
        "Mean over time: the area under the accuracy curve up to "
        f"{study.table.until_s:,.0f} {study.seconds}, divided by that time."
    ]
    if any(method.row.slow or method.row.fast for method in study.methods):
        told.insert(0, f"Slow and fast clients: {study.theirs}.")
    if study.language:
        told.append(
            "Accuracy: of the next token. Perplexity: exp of the mean cross-entropy of a token; lower is better."
        )
    if len(study.ranked) > 1:
        told.append(
            f"Bold: the best mean. Points to {study.table.reference}: the difference in final accuracy, paired by "
            "seed, mean ± standard error; below two standard errors it is a tie."
        )
    return " ".join(told)


def _cost(study: Study, places: dict[str, int]) -> Table:
    rows = [method.row for method in study.methods if method.row.final is not None]
    target, reference = f"{100 * study.table.target:g} %", study.table.reference
    columns = [
        Column(f"{study.unit} to {target}", lambda row: row.target_s, 1.0, "low", of_target=True),
        Column(f"{study.unit} minus {reference}'s", lambda row: row.target_s_difference),
        Column(f"updates to {target}", lambda row: row.target_updates, 1.0, "low", 0, True),
        Column("seconds a run", lambda row: row.wall),
        Column("of these the server's", lambda row: row.server),
        Column("peak memory, MiB", lambda row: row.memory, places=0),
    ]
    return _numbers("t-cost", "Speed and cost", rows, columns, places)


def _gap(gap: Spread) -> str:
    places = 1 if gap.n < 2 or gap.standard_error >= 0.0005 else 2
    text = f"{100 * gap.mean:+.{places}f}".replace("-", "−")
    return f"{text} ± {100 * gap.standard_error:.{places}f}" if gap.n > 1 else text


def _pairs(study: Study, places: dict[str, int]) -> Table:
    methods = [method for method, _ in study.ranked]
    signs = {"ahead": ("▲", "good"), "behind": ("▼", "bad"), "tie": ("≈", "soft"), "one seed": ("", "soft")}
    rows = []
    for one in methods:
        cells = [Cell(one.label)]
        for other in methods:
            gap = study.difference(one, other)
            sign, stress = signs[gap.verdict] if gap else ("–", "soft")
            cells.append(Cell(f"{_gap(gap)} {sign}".strip() if gap else sign, stress))
        rows.append(cells)
    return Table("t-pairs", "Every pair", ["", *(m.label for m in methods)], rows, looks=places)


# -- figures -----------------------------------------------------------------------------------------------------------


def _bundles(study: Study, x: str, y: str, scale: float = 1.0) -> list[Bundle]:
    def line(run: Run) -> list[tuple[float, float]]:
        return [(row[x] / scale, row[y]) for row in run.metrics if row.get(y) is not None and row[y] < 1e6]

    return [
        Bundle(
            method.label,
            {run.seed: found for run in method.runs if (found := line(run))},
            frozenset(run.seed for run in method.finished),
        )
        for method in study.methods
    ]


def learning(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    ends = [run.metrics[-1]["virtual_time_s"] for run in study.runs if run.metrics]
    length, unit = figures.unit_of(max(ends, default=0.0))
    there = [name for name in MEASURES if any(row.get(name) is not None for run in study.runs for row in run.metrics)]
    if not there:
        return ""

    def variants(x: str, scale: float, axis: str) -> dict[str, Figure]:
        return {
            name: figures.curves(
                _bundles(study, x, name, scale), looks, axis, MEASURES[name].lower() + ", nats" * ("loss" in name),
                percent="accuracy" in name, log="perplexity" in name,
            )
            for name in there
        }  # fmt: skip

    parts.figures["time"] = variants("virtual_time_s", length, f"{study.clock}, {unit}")
    parts.figures["updates"] = variants("updates", 1.0, "accepted updates")
    picks = {name: MEASURES[name] for name in there}
    seeds = "Line: mean over seeds; band: one standard deviation; thin lines: single seeds. " if _many(study) else ""
    first, better = MEASURES[there[0]], "Higher" if "accuracy" in there[0] else "Lower"
    content = switch("measure", picks, "time updates", titles=True) + grid(
        [
            figure(
                "time",
                f"{first} over {study.clock}",
                f"{seeds}{better} at the same time is faster for whoever waits.",
                after=f" over {study.clock}",
            ),
            figure(
                "updates",
                f"{first} over updates",
                f"{seeds}{better} at the same number of updates makes more of each.",
                after=" over updates",
            ),
        ]
    )
    kinds = " and ".join(sorted({"live" if run.live else "simulated" for run in study.runs}))
    about = f"The same runs twice: by the clock of the {kinds} federation, and by the work that clients delivered."
    return section("learning", "Learning", about, content)


MOST_TEXTS = 4
"""Of a run's evaluations, how many show what the model writes."""


def continuations(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    """What a language model makes of a few beginnings, as it learns."""
    placed: list[tuple[int, list[Cell]]] = []
    seeds = set()
    for method in study.methods:
        said = next(
            ((run, texts) for run, f in zip(method.runs, method.facts, strict=True) if (texts := f.texts)), None
        )
        if said is None:
            continue
        run, texts = said
        seeds.add(run.seed)
        ends = list(dict.fromkeys(at_s for at_s, _, _ in texts))
        last = len(ends) - 1
        picked = {ends[round(place * last / max(1, MOST_TEXTS - 1))] for place in range(MOST_TEXTS)}
        for place, prompt in enumerate(dict.fromkeys(prompt for _, prompt, _ in texts)):
            placed += [
                (place, [Cell(method.label), Cell(f"{at_s:,.0f}"), Cell(_shown(prompt)), Cell(_shown(text))])
                for at_s, start, text in texts
                if start == prompt and at_s in picked
            ]
    if not placed:
        return ""
    rows = [row for _, row in sorted(placed, key=lambda pair: pair[0])]  # a beginning's of all methods together
    header = ["method", study.unit, "beginning", "continued by the model"]
    places = {label: look.place for label, look in looks.items()}
    table = Table("t-continuations", "What the model writes", header, rows, frozenset({2, 3}), places)
    note = f"Beginnings of test texts, continued by the server's model. Seed {', '.join(map(str, sorted(seeds)))}."
    about = f"The same beginnings at several times: how the text gets better over {study.clock}."
    return section("texts", "Continuations", about, card(table, parts, note, "texts"))


def _shown(text: str) -> str:
    """A text on one line, its line ends visible."""
    return " ⏎ ".join(" ".join(line.split()) for line in text.strip().splitlines() if line.strip())


def stragglers(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    told = {method.label: [f for f in method.facts if f.staleness] for method in study.methods}
    told = {label: found for label, found in told.items() if found}
    made = []
    if told:
        parts.figures["staleness"] = {
            "linear": figures.staleness(told, looks, log=False),
            "log": figures.staleness(told, looks, log=True),
        }
        made.append(
            figure(
                "staleness",
                "Staleness of the updates",
                "How many versions the server had made since the client got its model. Bins double in width; shares "
                "are means over seeds. On the logarithmic scale the few very late updates show.",
                switch("scale", {"linear": "Linear", "log": "Logarithmic"}, "staleness"),
            )
        )
    spreads = {}
    for method in study.methods:
        row = method.row
        by_group = {"slow clients": row.slow, "all": row.final, "fast clients": row.fast}
        found = {group: (s.mean, s.std) for group, s in by_group.items() if s is not None}
        if len(found) > 1:
            spreads[method.label] = found
    if spreads:
        parts.figures["speed"] = {"": figures.by_speed(spreads, looks)}
        made.append(
            figure(
                "speed",
                "Accuracy by client speed",
                f"Final accuracy on all test data, and of the slow and of the fast clients: {study.theirs}; bars: one "
                "standard deviation over seeds. Close together is fair.",
            )
        )
    if not made:
        return ""
    table = _contributions(study, looks)
    text = grid(made)
    if table is not None:
        text += card(
            table,
            parts,
            "Accepted updates by the speed class of the client that sent them. Shares and counts are means over seeds; "
            f"{study.seconds}, from dispatch to arrival.{_classes(study)}",
        )
    about = "A server that does not wait gets updates made from an old model, and few of them from whoever is slow."
    return section("late", "Late updates and slow clients", about, text)


def _contributions(study: Study, looks: Mapping[str, Look]) -> Table | None:
    groups = [g for g in facts.CLASSES if any(g in f.shares for m in study.methods for f in m.facts)]
    if len(groups) < 2:
        return None
    header = ["method", "clients", "how many", "updates", "share of all", "seconds a job", "mean staleness"]
    rows = []
    for method in study.methods:
        total = sum(sum(f.staleness.values()) for f in method.facts)
        for group in groups:
            shares = [f.shares[group] for f in method.facts if group in f.shares]
            updates = sum(share.updates for share in shares)
            waited = [share.waited_s for share in shares if share.waited_s is not None]
            stale = [share.staleness for share in shares if share.staleness is not None]
            rows.append(
                [
                    Cell(method.label),
                    Cell(group),
                    Cell(f"{shares[0].clients:,}" if shares else "–"),
                    Cell(f"{updates / len(shares):,.0f}" if shares else "–"),
                    Cell(f"{100 * updates / total:.1f} %" if total else "–"),
                    Cell(f"{sum(waited) / len(waited):,.1f}" if waited else "–"),
                    Cell(f"{sum(stale) / len(stale):,.1f}" if stale else "–"),
                ]
            )
    kinds = len(groups)
    per_method = [[row[1:] for row in rows[place : place + kinds]] for place in range(0, len(rows), kinds)]
    if len(per_method) > 1 and all(
        found == per_method[0] for found in per_method
    ):  # the same jobs, drawn from the same seeds
        rows = [[Cell("all methods"), *row] for row in per_method[0]]
    places = {label: look.place for label, look in looks.items()}
    return Table("t-shares", "Who contributed", header, rows, frozenset({1}), places)


def timeline(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    drawn: list[tuple[Method, list[facts.Job], tuple[str, ...], list[int], float]] = []
    for method in study.methods:
        run, told = method.runs[0], method.facts[0]
        jobs, last_s = facts.jobs(run.path)
        if jobs:
            rows = figures.rows_of(told.groups, told.clients)
            drawn.append((method, jobs, told.groups, rows, figures.window_of(jobs, rows, last_s)))
    if not drawn:
        return ""
    until_s = min(window for *_, window in drawn)
    parts.figures["timeline"] = {
        method.label: figures.timeline(jobs, classes, rows, until_s, looks[method.label], study.clock)
        for method, jobs, classes, rows, _ in drawn
    }
    method, jobs, _, rows, _ = drawn[0]
    clients = method.facts[0].clients
    said = f"the first {until_s:,.0f} {study.seconds}" if any(until_s < job.ends_s for job in jobs) else "the whole run"
    sample = f" {len(rows)} of the {clients:,} clients, an even sample of each class." if len(rows) < clients else ""
    classes = any(theirs for _, _, theirs, *_ in drawn)
    by_class = ", sorted by speed class (the numbers: clients in it)" if classes else ""
    marks = ""
    if any(job.how in ("lost", "refuse", "cancel") for _, theirs, *_ in drawn for job in theirs):
        marks = " × marks a lost job, ◇ a refused update, | a cancelled one."
    text = (
        f"One row a client{by_class}; one bar a job, from dispatch to arrival; pale: still at work at the end.{marks} "
        f"Seed {method.runs[0].seed}, {said}.{sample}{_classes(study)}"
    )
    picks = {name: name for name in parts.figures["timeline"]}
    control = switch("run", picks, "timeline") if len(picks) > 1 else ""
    about = "Free slots are given to idle clients; a slow one keeps its slot for as long as its job takes."
    return section("when", "Who worked when", about, figure("timeline", "Timeline of the clients", text, control))


def stages(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    names = dict.fromkeys(name for m in study.methods for f in m.facts for name in f.refined)
    quantities = dict.fromkeys(name.partition(".")[2] for name in names)
    made = []
    for quantity in [*(q for q in REFINED if q in quantities), *(q for q in quantities if q not in REFINED)][:8]:
        bundles = []
        for method in study.methods:
            for stage in dict.fromkeys(name.partition(".")[0] for name in names):
                lines = {
                    run.seed: f.refined[f"{stage}.{quantity}"]
                    for run, f in zip(method.runs, method.facts, strict=True)
                    if f"{stage}.{quantity}" in f.refined
                }
                if lines:
                    bundles.append(Bundle(method.label, lines, frozenset(run.seed for run in method.finished)))
        title, axis, caption = REFINED.get(
            quantity, (quantity.replace("_", " ").capitalize(), quantity, "As recorded.")
        )
        drawn = figures.curves(bundles, looks, "accepted updates", axis)
        if quantity in ("uncertainty", "alpha"):
            drawn["layout"]["yaxis"] |= {"range": [0, 1]}
        if quantity == "rows":
            drawn["layout"]["yaxis"] |= {"rangemode": "tozero"}
        parts.figures[f"refine-{quantity}"] = {"": drawn}
        made.append(figure(f"refine-{quantity}", title, caption))
    if not made:
        return ""
    about = (
        "After an aggregation the clients' predictions on the unlabeled set U are distilled into the model; here is "
        "what that saw and did."
    )
    return section("echo", "The echo", about, grid(made))


def work(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    made = []
    means: dict[str, dict[str, float]] = {}
    for method in study.methods:
        results = [run.result for run in method.finished if run.result is not None]
        if results:
            kinds = dict.fromkeys(kind for result in results for kind in result.server_s)
            means[method.label] = {k: sum(r.server_s.get(k, 0.0) for r in results) / len(results) for k in kinds}
    if means:
        parts.figures["seconds"] = {"": figures.seconds(means)}
        made.append(
            figure(
                "seconds",
                "Where the seconds went",
                f"Real seconds on the machine that {study.host}."
                + " The clients' training would be theirs in a real federation; the rest is the server's."
                * any(not run.live for run in study.runs),
            )
        )
    told = {method.label: [f for f in method.facts if len(f.norms) > 1] for method in study.methods}
    told = {label: found for label, found in told.items() if found}
    if told:
        parts.figures["norms"] = {"": figures.change_norms(told, looks)}
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


# -- settings, environment, citations ----------------------------------------------------------------------------------


def settings(study: Study, looks: Mapping[str, Look], parts: Parts) -> str:
    places = {label: look.place for label, look in looks.items()}
    text = ""
    if study.differing:
        labels = [method.label for method in study.methods]
        rows = [[Cell(name), *(Cell(values[label]) for label in labels)] for name, values in study.differing.items()]
        text += card(
            Table("t-differ", "What differs between the methods", ["setting", *labels], rows),
            parts,
            "– where a method has no such setting.",
            "settings",
        )
    common = [[Cell(name), Cell(value)] for name, value in study.common.items()]
    about = "Common to all runs" if len(study.methods) > 1 else "All settings"
    text += folded(Table("t-common", about, ["setting", "value"], common, frozenset({1})), parts)
    environment = [[Cell(name), Cell(" / ".join(values))] for name, values in study.environments.items()]
    if environment:
        text += folded(Table("t-environment", "Environment", ["", "value"], environment, frozenset({1})), parts)
    runs = []
    for method in study.methods:
        for run, about_run in zip(method.runs, method.facts, strict=True):
            last = run.metrics[-1] if run.metrics else None
            r = run.result
            runs.append(
                [
                    Cell(method.label),
                    Cell(str(run.seed)),
                    Cell("finished" if r else "unfinished", "" if r else "bad"),
                    Cell("–" if r is None or r.final_accuracy is None else f"{100 * r.final_accuracy:.2f}"),
                    Cell(f"{last['updates']:,}" if last else "0"),
                    Cell(f"{last['version']:,}" if last else "0"),
                    Cell(f"{last['virtual_time_s']:,.1f}" if last else "0"),
                    Cell(_reasons(about_run.refused)),
                    Cell(_reasons(about_run.lost)),
                    Cell(r.model_sha256[:12] if r else "–"),
                ]
            )
    header = [
        "method",
        "seed",
        "state",
        "final accuracy, %",
        "updates",
        "versions",
        study.unit,
        "refused",
        "lost",
        "model",
    ]
    text += folded(Table("t-runs", "Every run", header, runs, frozenset({2, 9}), places), parts)
    told = []
    if any(not run.live for run in study.runs):
        told.append("Everything that decides a run; a run folder's config.toml given to “fedecho run” repeats it.")
    if study.live:
        told.append(
            "What the server of a live federation was told; its clients' data, training and delays are their own. "
            "“fedecho replay” recomputes its model from what was recorded."
        )
    about = " ".join(told)
    return section("settings", "Settings", about, text)


def _reasons(counts: Mapping[str, int]) -> str:
    """The most frequent ones; a live federation's can be long, and many."""
    most, others = list(counts.items())[:3], sum(list(counts.values())[3:])
    told = [f"{n:,} ({textwrap.shorten(reason, 90, placeholder='…')})" for reason, n in most]
    return ", ".join([*told, *[f"{others:,} (for other reasons)"] * bool(others)]) or "0"


def _classes(study: Study) -> str:
    """How a live run's clients came to speed classes, where they did."""
    live = [f for method in study.methods for run, f in zip(method.runs, method.facts, strict=True) if run.live]
    if not any(f.groups for f in live):
        return ""
    unheard = " Unknown: too little was heard of them." if any("unknown" in f.groups for f in live) else ""
    return f" Clients of a live federation are fast, medium or slow by the rank of their mean job time there.{unheard}"


def citations(study: Study, parts: Parts) -> str:
    found: dict[str, list[str]] = {}
    for run in study.runs:
        rules: tuple[Algorithm | Stage, ...] = (run.config.algorithm, *run.config.refine)
        for part in rules:
            citation = part.citation
            if citation and part.name not in found.setdefault(_bibtex(citation), []):
                found[_bibtex(citation)].append(part.name)
    if not found:
        return ""
    text = ""
    for citation, names in found.items():
        parts.citations.append(citation)
        name = escaped(", ".join(names))
        text += (
            f'<div class="card-head"><h3>{name}</h3><div class="tools"><button type="button" '
            f'data-cite="{len(parts.citations) - 1}" aria-label="Copy the BibTeX of {name}">Copy BibTeX</button></div>'
            f'</div><pre tabindex="0">{escaped(citation)}</pre><br>'
        )
    content = f'<div class="card">{text.removesuffix("<br>")}</div>'
    return section("cite", "Citations", "The papers of the methods in this report.", content)


def _bibtex(text: str) -> str:
    """One field a line."""
    return re.sub(r", (\w+)=\{", r",\n  \1={", text).removesuffix("}") + "\n}"


def _many(study: Study) -> bool:
    return any(len(method.runs) > 1 for method in study.methods)
