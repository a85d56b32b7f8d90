"""Central differential privacy: what is clipped, what noise is added, and what the accountant says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedecho import Config, ConfigError, MissingExtra, replay, run
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.experiment.build import prepare
from fedecho.server.server import Server
from fedecho.server.settings import Stop
from fedecho.stages.central_dp import CentralDP, Spent
from helpers import change, vec

MODEL = Model(0, torch.zeros(4), torch.zeros(0))


def revised(
    stage: CentralDP, delta: torch.Tensor, task: int = 0, state: Spent | None = None
) -> tuple[torch.Tensor, Spent]:
    key = Key(1).fold(task)
    moved, after, _ = stage.revise(state or stage.init(3), change(delta), MODEL, None, key)  # type: ignore[arg-type]
    return moved, after


def test_clips_to_the_norm_and_only_then_adds_noise() -> None:
    """Without noise to speak of: a change of norm 5 comes to norm 2, one of norm 1 stays."""
    quiet = CentralDP(clip=2.0, noise_multiplier=1e-9)
    torch.testing.assert_close(revised(quiet, vec(3, 0, 4, 0))[0], vec(1.2, 0, 1.6, 0))
    torch.testing.assert_close(revised(quiet, vec(0.6, 0, 0.8, 0))[0], vec(0.6, 0, 0.8, 0))
    torch.testing.assert_close(revised(quiet, vec(0, 0, 0, 0))[0], vec(0, 0, 0, 0))


def test_the_sum_of_a_buffer_has_the_noise_of_one_mechanism() -> None:
    """Four changes of zero, 5,000 numbers each: their sum's standard deviation is z·S, whatever M."""
    stage = CentralDP(clip=0.5, noise_multiplier=3.0, buffer_size=4)
    noises = [revised(stage, torch.zeros(5000), task)[0] for task in range(4)]
    assert float(torch.stack(noises).sum(0).std()) == pytest.approx(1.5, rel=0.03)
    assert float(noises[0].std()) == pytest.approx(0.75, rel=0.03)
    again = revised(stage, torch.zeros(5000), 0)[0]
    assert torch.equal(noises[0], again)  # a replay has the same
    assert abs(float(torch.corrcoef(torch.stack(noises[:2]))[0, 1])) < 0.05


def test_epsilon_is_that_of_composition() -> None:
    """A client twice in the first release and once in each of two more: Gaussian mechanisms of z/2, z and z, composed
    by another accountant of the same library."""
    dp_accounting = pytest.importorskip("dp_accounting")
    from dp_accounting.pld import PLDAccountant

    stage = CentralDP(noise_multiplier=4.0, buffer_size=2)
    state = stage.init(3)
    assert stage.epsilon(state) == 0.0
    for release, clients in enumerate([(0, 0), (0, 1), (1, 0)]):
        for client in clients:
            _, state, _ = stage.revise(state, change(vec(1, 0, 0, 0), client=client), MODEL, None, Key(release))  # type: ignore[arg-type]
        weights, state, recorded = stage.after_aggregate(state, MODEL, None, Key(0))  # type: ignore[arg-type]
        assert weights is MODEL.weights
    assert state.squares == {0: 4 + 1 + 1, 1: 1 + 1}
    assert state.now == {}
    accountant = PLDAccountant()
    for multiplier in (2.0, 4.0, 4.0):
        accountant.compose(dp_accounting.GaussianDpEvent(multiplier))
    assert recorded["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


def config(method: str, **tables: dict[str, Any]) -> dict[str, Any]:
    rule, _, stages = method.partition("+")
    return {
        "experiment": {"updates": 60, "eval_every": 20},
        "data": {"clients": 12, "unlabeled_size": 40},
        "model": {"hidden": [16]},
        "server": {"concurrency": 6, "buffer_size": 3},
        **tables,
        "algorithm": {"name": rule, **tables.get("algorithm", {})},
        "stages": [{"name": stage, **tables.get(stage, {})} for stage in stages.split("+") if stage],
    } | {name: table for name, table in tables.items() if name not in ("algorithm", "central_dp", "echo")}


def read(method: str, **tables: dict[str, Any]) -> Config:
    given = config(method, **tables)
    return Config.from_dict({name: table for name, table in given.items() if name not in ("central_dp", "echo")})


def test_a_run_tells_what_it_spent_and_is_replayed(tmp_path: Path) -> None:
    private = read("fedbuff+central_dp", central_dp={"clip": 0.5, "noise_multiplier": 0.05})
    (stage,) = private.stages
    assert isinstance(stage, CentralDP)
    assert prepare(private).server.stages == (replace(stage, buffer_size=3),)  # the rule's
    result = run(private, tmp_path / "run")
    plain = run(read("fedbuff"))
    assert result.model_sha256 != plain.model_sha256
    assert replay(tmp_path / "run").matches
    from fedecho.runs.folder import RunFolder

    folder = RunFolder.open(tmp_path / "run")
    spent = [row["detail"]["epsilon"] for row in folder.events() if row["kind"] == "stage"]
    folder.close()
    assert len(spent) == 20
    assert spent == sorted(spent)
    assert spent[0] > 0


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (
            lambda: read("ca2fl+central_dp"),
            "a rule from which changes leave only as their plain sum, and 'ca2fl' is none",
        ),
        (lambda: read("fedbuff+central_dp", algorithm={"weighting": "polynomial"}), "'fedbuff' is none as it is set"),
        (lambda: read("fedbuff+central_dp+echo"), "'central_dp' protects changes, and echo would look at them"),
        (
            lambda: read("fedbuff+central_dp", central_dp={"buffer_size": 2}),
            "stages.buffer_size (2) must be the rule's (3)",
        ),
        (
            lambda: read("fedbuff+central_dp", central_dp={"clip": 0.0}),
            "stages.clip is 0.0; the noise is measured by it",
        ),
        (
            lambda: read("fedbuff+central_dp", central_dp={"delta": 1.0}),
            "stages.delta is 1.0; it must be above 0 and below 1",
        ),
        (lambda: read("fedbuff+central_dp", central_dp={"noise_multiplier": 0.0}), "stages.noise_multiplier is 0.0"),
    ],
)
def test_what_would_not_protect_is_refused(make: Callable[[], Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert fault in str(caught.value)


def test_statistics_of_batch_norm_are_refused() -> None:
    model = Model(0, torch.zeros(4), torch.zeros(2))
    with pytest.raises(ConfigError, match="protects weights only, and the model has statistics of batch norm"):
        Server(FedBuff(buffer_size=1), model, 3, Key(0), Stop(updates=1), stages=[CentralDP()])


def test_without_the_accountant_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    with pytest.raises(MissingExtra, match=r"fedecho\[privacy\]"):
        CentralDP().init(3)
