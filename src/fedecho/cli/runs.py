"""The commands on one run: run, resume, replay."""

from __future__ import annotations

import argparse
import dataclasses

from ..config.config import Config
from ..experiment.replay import replay
from ..experiment.run import resume, run
from .progress import Screen
from .tables import profile_table, summary_line
from .values import write_out


def run_command(given: argparse.Namespace) -> int:
    with Screen(table=not given.json) as screen:
        result = run(Config.load(given.config, given.algorithm, given.set), given.out, screen)
    write_out(result.to_dict() if given.json else summary_line(result))
    if given.profile and not given.json:
        write_out("\n" + profile_table(result))
    return 0


def resume_command(given: argparse.Namespace) -> int:
    with Screen(table=not given.json) as screen:
        result = resume(given.run_dir, screen)
    write_out(result.to_dict() if given.json else summary_line(result))
    return 0


def replay_command(given: argparse.Namespace) -> int:
    with Screen(table=False) as screen:
        found = replay(given.run_dir, screen)
    digest = found.model_sha256[:12]
    if given.json:
        write_out(dataclasses.asdict(found))
    elif found.matches:
        part = f", from version {found.from_version} on (what came before was not kept)" if found.from_version else ""
        write_out(f"{found.updates} updates replayed{part}: the model matches the recorded one ({digest})")
    else:
        write_out(f"the replayed model {digest} differs from the recorded {found.recorded_sha256[:12]}")
    return 0 if found.matches else 1
