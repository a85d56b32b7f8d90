"""The parts of a run on a live federation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..config.config import Config
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.mapped import to_mmap
from ..core.messages import Model
from ..data.federation import Federation
from ..learning.learner import Learner
from ..learning.outputs import output_tensor
from ..learning.settings import ClientConfig
from ..objectives.base import Metric, Objective
from ..objectives.classification import Classification
from ..server.server import Server
from .limits import check_device, check_memory
from .setup import Judge, Setup


def prepare_live(
    config: Config,
    read: Callable[[Learner | None], Model],
    build: Callable[[], nn.Module] | None,
    unlabeled: Tensor | None,
    judge: Judge,
    export: Callable[[Learner | None, Model], dict[str, Tensor]],
    metrics: Sequence[Metric] | None = None,
) -> Setup:
    """Build the parts of a run on a live federation: clients come by `Joined`, and none is there before.

    Args:
        config: what is run; of its data only the number of clients counts.
        read: the initial model, in the learner's layout where there is a learner.
        build: makes the module, for a server that predicts or distils.
        unlabeled: U, [|U|, *shape] float32, likewise.
        judge: judges the server's model.
        export: the model as a plain state_dict.
        metrics: what `judge` tells, the judged one first; None: those of the configuration's objective, by default of
            classification.

    Raises:
        ConfigError: for what cannot be built, with the remedy.
    """
    torch.set_num_threads(config.executor.threads)
    key = Key(config.experiment.seed)
    check_device(config.experiment.device)
    objective = Classification() if config.objective is None else config.objective
    learner = _server_learner(config, build, unlabeled, key, objective)
    outputs = None if learner is None else (learner.prediction_count, learner.classes)
    initial = read(learner)
    check_memory(config, len(initial.weights), outputs or (0, 0))
    clients = config.data.clients
    server = Server(
        config.algorithm,
        initial,
        clients,
        key.fold("server"),
        config.experiment.stop,
        config.server,
        config.stages,
        learner,
        outputs,
        range(clients),
        to_mmap if config.records.bank == "mapped" else None,
    )
    return Setup(
        config=config,
        server=server,
        judge=judge,
        export=lambda model: export(learner, model),
        learner=learner,
        continue_prompts=None,
        objective=objective.name,
        metrics=objective.metrics if metrics is None else tuple(metrics),
    )


def _server_learner(
    config: Config,
    build: Callable[[], nn.Module] | None,
    unlabeled: Tensor | None,
    key: Key,
    objective: Objective,
) -> Learner | None:
    """The learner of a server whose stages predict or distil; None where no stage does.

    Raises:
        ConfigError: when the model or U is missing.
    """
    if not any(stage.needs_compute for stage in config.stages):
        return None
    if build is None:
        raise ConfigError(f"{config.method} learns on the server: give it `model`, which builds the module")
    predicting = any(stage.needs_predictions for stage in config.stages)
    if unlabeled is None or (predicting and not len(unlabeled)):
        few = "" if predicting else "; [0, *shape] does, for it looks at no real input"
        raise ConfigError(f"{config.method} needs `unlabeled`: give it the public inputs, [|U|, *shape] float32{few}")
    return public_learner(build, unlabeled, key, config.experiment.device, objective)


def public_learner(
    build: Callable[[], nn.Module], unlabeled: Tensor, key: Key, device: str, objective: Objective
) -> Learner:
    """A learner that holds no client's data, only U, [|U|, *shape] float32.

    Raises:
        ConfigError: when the module does not answer inputs of that shape with logits [n, C].
    """
    unlabeled = unlabeled.detach().float().cpu()
    shape = tuple(unlabeled.shape[1:])
    try:
        with torch.no_grad():
            logits = output_tensor(build().eval()(torch.zeros(2, *shape)))
    except Exception as fault:  # whatever the module raises
        raise ConfigError(
            f"the model cannot take `unlabeled` [n, {shape}]: {fault}; give inputs as it is fed"
        ) from fault
    if logits.dim() != 2 or len(logits) != 2:
        raise ConfigError(f"the model gives {tuple(logits.shape)} for two inputs; it must give logits [2, C]")
    data = Federation.public(unlabeled, int(logits.shape[1]))
    return Learner(build, data, ClientConfig(), key, None, device, "contiguous", objective)
