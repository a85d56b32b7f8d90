"""Other simulators on the same work: time over ours, paired and in turn.

    python benchmarks/peers.py install [--peers pfl,appfl] [--envs FOLDER]
    python benchmarks/peers.py run [--peers …] [--pairs 3] [--jobs 200] [--json]

`install` gives each peer a virtual environment of its own, from PyPI. `run` starts a driver (`benchmarks/peers/`) for
each run, in that environment: 50 clients with 1,000 images of Fashion-MNIST each, an MLP 784-512-256-10, 20 steps of
SGD a job, one torch thread, no evaluation. Timed is from the first job to the last; imports and loading are not.
Each pair is ours (inline), then a peer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STEPS = 20
"""Of a job: each client has 1,000 examples, 50 a batch."""


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes:
        title: what ran.
        driver: the script in benchmarks/peers/.
        setting: handed to the driver.
        env: the environment's name; None: the one this script runs in.
        packages: what is installed there.
    """

    title: str
    driver: str
    setting: str = "default"
    env: str | None = None
    packages: tuple[str, ...] = ()


OURS = Peer("fedecho, FedBuff, inline", "ours.py", "inline")
PEERS = {
    "processes": Peer("fedecho, FedBuff, two workers", "ours.py", "processes"),
    "bare": Peer("bare PyTorch loop, no server", "bare.py"),
    "pfl": Peer(
        "pfl 0.6.0, FederatedAveraging, synchronous", "pfl_driver.py", env="pfl", packages=("pfl[pytorch]==0.6.0",)
    ),
    "appfl_fast": Peer(
        "APPFL 1.12.0 vsim, FedBuff, optimize_memory=False", "appfl_driver.py", "fast", "appfl", ("appfl==1.12.0",)
    ),
    "appfl": Peer("APPFL 1.12.0 vsim, FedBuff, defaults", "appfl_driver.py", "defaults", "appfl", ("appfl==1.12.0",)),
    "flgo": Peer("FLGo 0.4.4, FedBuff, asynchronous", "flgo_driver.py", env="flgo", packages=("flgo==0.4.4",)),
    "flower": Peer(
        "Flower 1.42.0 simulation, FedAvg, synchronous, one actor",
        "flower_driver.py",
        env="flwr",
        packages=("flwr[simulation]==1.42.0",),
    ),
}


def table(runs: Mapping[str, Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]], jobs: int) -> str:
    """A table of what the drivers told: for each peer, pairs (ours, the peer's).

    Raises:
        ValueError: if a driver did not do `jobs` jobs of 20 steps.
    """
    lines = [
        f"| {'peer':56} | wall over ours | CPU over ours | wall, s | CPU, s | accuracy | pairs |",
        f"|{'-' * 58}|---|---|---|---|---|---|",
    ]
    for name, pairs in runs.items():
        for told in (one for pair in pairs for one in pair):
            if (told["jobs"], told["steps"]) != (jobs, jobs * STEPS):
                raise ValueError(
                    f"{name}: {told['jobs']} jobs and {told['steps']} steps; comparable are {jobs} and {jobs * STEPS}"
                )
        ratios = {key: [peer[key] / ours[key] for ours, peer in pairs] for key in ("wall_s", "cpu_s")}
        walls, cpus = ratios["wall_s"], ratios["cpu_s"]
        wall, cpu, accuracy = (
            statistics.median(peer[key] for _, peer in pairs) for key in ("wall_s", "cpu_s", "accuracy")
        )
        lines.append(
            f"| {PEERS[name].title:56} | {statistics.median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f}) "
            f"| {statistics.median(cpus):.2f} ({min(cpus):.2f} to {max(cpus):.2f}) "
            f"| {wall:.2f} | {cpu:.2f} | {accuracy:.2f} | {len(pairs)} |"
        )
    return "\n".join(lines)


def python(peer: Peer, envs: Path) -> Path:
    """The interpreter that runs a peer's driver."""
    return Path(sys.executable) if peer.env is None else envs / peer.env / "bin" / "python"


def drive(peer: Peer, envs: Path, work: Path, jobs: int) -> dict[str, Any]:
    """Run a driver; what it told."""
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python(peer, envs)), str(HERE / "peers" / peer.driver), str(work), str(jobs), peer.setting]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **single}, check=False)
    told = [line for line in ran.stdout.splitlines() if line.startswith('{"jobs"')]
    if ran.returncode or not told:
        raise SystemExit(f"{peer.title} failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}")
    return dict(json.loads(told[-1]))


def install(peers: Sequence[str], envs: Path) -> None:
    for name in peers:
        peer = PEERS[name]
        if peer.env is None or python(peer, envs).exists():
            continue
        print(f"{name}: {', '.join(peer.packages)}", flush=True)
        venv.create(envs / peer.env, with_pip=True)
        pip = [str(python(peer, envs)), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, "torch", *peer.packages], check=True)


def run(
    peers: Sequence[str], envs: Path, pairs: int, jobs: int
) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    missing = [name for name in peers if not python(PEERS[name], envs).exists()]
    if missing:
        raise SystemExit(f"not installed in {envs}: {', '.join(missing)}; run `python benchmarks/peers.py install`")
    if jobs % 5:
        raise SystemExit(f"--jobs is {jobs}; synchronous peers train five clients a round: give a multiple of 5")
    work = envs / "work.npz"
    if not work.exists():
        envs.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(HERE / "peers" / "ours.py"), str(work), "1", "export"], check=True)
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {name: [] for name in peers}
    for pair in range(pairs):
        for name in peers:
            found[name].append((drive(OURS, envs, work, jobs), drive(PEERS[name], envs, work, jobs)))
            ours, peer = found[name][-1]
            told = f"{peer['wall_s']:.2f} s, ours {ours['wall_s']:.2f} s"
            print(f"pair {pair + 1}, {name}: {told}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("install", "run"))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "fedecho-peers")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    peers = given.peers.split(",")
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if given.do == "install":
        return install(peers, given.envs)
    found = run(peers, given.envs, given.pairs, given.jobs)
    print(json.dumps(found) if given.json else table(found, given.jobs))


if __name__ == "__main__":
    main()
