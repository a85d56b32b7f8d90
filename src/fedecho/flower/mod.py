"""What a Flower client can do besides its training: follow a rule's client side, and predict on U."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..algorithms.base import ClientRule
from ..config.registry import algorithm_classes
from ..core.messages import Extra
from ..learning.inference import INFERENCE_BATCH
from ..stages.compute import PredictionFormat
from .arrays import as_record, digest, flat, tensor_of
from .codec import ASKED, EXTRA, PREDICTIONS

Next = Callable[[Message, Context], Message]


class _CannotComply(Exception):
    """This client cannot do what the server asks; the message says why."""


def client_mod(
    model: Callable[[], nn.Module] | None = None, unlabeled: Tensor | Callable[[], Tensor] | None = None
) -> Callable[[Message, Context, Next], Message]:
    """A mod for a PyTorch ClientApp: `ClientApp(mods=[client_mod(...)])`.

    Put it first: what other mods do to the update (clip it, add noise) then comes before the predictions, which then
    reveal no more than the update does.

    It acts only where the server asks for it. A rule that changes local steps (a proximal term, control variates) is
    followed by a hook before every step of the app's own optimizer, whose parameters must be the model's, in its order.
    Predictions on U are made with the trained model.

    Args:
        model: builds the module that the app trains; for predictions.
        unlabeled: U [|U|, *shape] float32, the server's own to the bit, or a function that loads it; for predictions.
    """
    cache: dict[str, Tensor] = {}

    def public_inputs() -> Tensor:
        if "U" not in cache:
            if unlabeled is None:
                raise _CannotComply("the server asks for predictions: give client_mod `model` and `unlabeled`")
            cache["U"] = unlabeled() if callable(unlabeled) else unlabeled
        return cache["U"]

    def mod(message: Message, context: Context, call_next: Next) -> Message:
        content = message.content
        if ASKED not in content:
            return call_next(message, context)
        request = dict(content.config_records[ASKED])
        del content[ASKED]
        vectors = {name: tensor_of(array) for name, array in content.array_records.get(EXTRA, {}).items()}
        if EXTRA in content:
            del content[EXTRA]
        try:
            if "rule" in request:
                extra: Extra = {**json.loads(str(request["numbers"])), **vectors}
                names = json.loads(str(request["weights"]))
                reply = _follow(_rule(str(request["rule"])), names, extra, message, lambda: call_next(message, context))
            else:
                reply = call_next(message, context)
            if "predict" in request and not reply.has_error():
                if digest(public_inputs()) != request["predict"]:
                    raise _CannotComply(
                        "`unlabeled` is not the server's: both must hold the same examples in the same order"
                    )
                arrays = _arrays(reply)
                form = PredictionFormat.asked(json.loads(str(request.get("form", "{}"))))
                reply.content[PREDICTIONS] = as_record(
                    {"predictions": _predictions(model, arrays, public_inputs(), form)}
                )
        except _CannotComply as fault:
            return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"fedecho: {fault}"), reply_to=message)
        return reply

    return mod


def _rule(text: str) -> ClientRule:
    settings = json.loads(text)
    known = algorithm_classes()
    if (name := settings.pop("name")) not in known:
        raise _CannotComply(f"this version does not know the rule {name!r}: install the server's version of fedecho")
    rule = known[name](**settings).client_rule
    if rule is None:
        raise _CannotComply(f"the rule {name!r} asks nothing of clients here: install the server's version of fedecho")
    return rule


def _follow(
    rule: ClientRule, names: list[str], extra: Extra, message: Message, train: Callable[[], Message]
) -> Message:
    """Train with the rule's directions; the reply with what it reports."""
    arrays = _arrays(message)
    start = flat(arrays[name] for name in names)
    shapes = [arrays[name].shape for name in names]
    with _directed(rule, start, shapes, extra) as steps:
        reply = train()
    if reply.has_error():
        return reply
    if not steps.taken:
        raise _CannotComply("no PyTorch optimizer stepped over the model's parameters: the rule cannot be followed")
    after = _arrays(reply)
    names_after = names if set(names) <= set(after) else _in_order(arrays, after, names)
    trained = flat(after[name] for name in names_after)
    report = rule.report(start, trained, steps.taken, steps.lr / steps.taken, extra)
    vectors = {name: value for name, value in report.items() if isinstance(value, Tensor)}
    if vectors:
        reply.content[EXTRA] = as_record(vectors)
    return reply


class _Steps:
    """Steps taken, and the sum of their step sizes."""

    taken: int = 0
    lr: float = 0.0


@contextmanager
def _directed(rule: ClientRule, start: Tensor, shapes: list[torch.Size], extra: Extra) -> Iterator[_Steps]:
    """While this lasts, every optimizer's steps follow the rule."""
    steps = _Steps()

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        if [p.shape for p in parameters] != shapes:
            raise _CannotComply(
                f"the optimizer's {len(parameters)} parameters are not the model's {len(shapes)} in its order: give it "
                "model.parameters(), so that the rule can be followed"
            )
        with torch.no_grad():
            gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
            weights = torch.cat([p.reshape(-1) for p in parameters])
            moved = {n: value.to(weights) if isinstance(value, Tensor) else value for n, value in extra.items()}
            rule.direct(gradient, weights, start.to(weights), moved)
            for p, part in zip(parameters, torch.split(gradient, [p.numel() for p in parameters]), strict=True):
                p.grad = part.view(p.shape).clone()
        steps.taken += 1
        steps.lr += float(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(before)
    try:
        yield steps
    finally:
        handle.remove()


def _predictions(
    model: Callable[[], nn.Module] | None, arrays: dict[str, Tensor], unlabeled: Tensor, form: PredictionFormat
) -> Tensor:
    if model is None:
        raise _CannotComply("the server asks for predictions: give client_mod `model` and `unlabeled`")
    module = model().eval()
    state = module.state_dict()
    module.load_state_dict(arrays if set(arrays) == set(state) else dict(zip(state, arrays.values(), strict=True)))
    with torch.no_grad():
        parts = torch.split(unlabeled.float(), INFERENCE_BATCH)
        return torch.cat([form.of(module(part).float()) for part in parts])


def _arrays(message: Message) -> dict[str, Tensor]:
    records = message.content.array_records
    if len(records) != 1:
        raise _CannotComply(
            f"the message holds {len(records)} array records; fedecho's mod wants one: put it first of the mods"
        )
    return {name: tensor_of(array) for name, array in next(iter(records.values())).items()}


def _in_order(before: dict[str, Tensor], after: dict[str, Tensor], names: list[str]) -> list[str]:
    """The names after training of the arrays that were called `names` before it: the app names them otherwise and
    keeps their order."""
    if len(before) != len(after):
        raise _CannotComply(f"training returned {len(after)} arrays for {len(before)}")
    places = list(before)
    return [list(after)[places.index(name)] for name in names]
