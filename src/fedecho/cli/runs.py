"""The commands on one run: run, resume, replay. What is slow to import is imported when it is needed."""

from __future__ import annotations

import argparse
import dataclasses

from ..core.errors import ConfigError
from .arguments import require_file, require_run
from .output import print_json


def run_command(options: argparse.Namespace) -> int:
    require_file(options.config)
    if options.algorithm is not None and "," in options.algorithm:
        raise ConfigError(
            f"--algorithm is {options.algorithm!r}; run takes one method, `fedecho compare` takes several"
        )
    from ..config.config import Config
    from ..experiment.run import run
    from .progress import RunScreen
    from .tables import profile_table, summary_line

    with RunScreen(table=not options.json) as screen:
        result = run(Config.load(options.config, options.algorithm, options.set), options.out, screen)
    if options.json:
        print_json(result.to_dict())
    else:
        print(summary_line(result))
        if options.profile:
            print("\n" + profile_table(result))
    return 0


def resume_command(options: argparse.Namespace) -> int:
    require_run(options.run_dir)
    from ..experiment.run import resume
    from .progress import RunScreen
    from .tables import summary_line

    with RunScreen(table=not options.json) as screen:
        result = resume(options.run_dir, screen)
    if options.json:
        print_json(result.to_dict())
    else:
        print(summary_line(result))
    return 0


def replay_command(options: argparse.Namespace) -> int:
    require_run(options.run_dir)
    from ..experiment.replay import replay
    from .progress import RunScreen

    with RunScreen(table=False) as screen:
        outcome = replay(options.run_dir, screen)
    digest = outcome.model_sha256[:12]
    if options.json:
        print_json(dataclasses.asdict(outcome))
    elif outcome.matches:
        part = f", from version {outcome.from_version} on (earlier events are not kept)" if outcome.from_version else ""
        print(f"{outcome.updates} updates replayed{part}: the model matches the recorded one ({digest})")
    else:
        print(f"the replayed model {digest} differs from the recorded {outcome.recorded_sha256[:12]}")
    return 0 if outcome.matches else 1
