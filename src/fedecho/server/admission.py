"""What may be used of a client's answer: one place, before anything else looks at it.

An answer is admitted whole or refused whole, with the kind of refusal and a reason. What is checked, in this order:
that each part is of the kind it should be, its shape and type, that its numbers are finite, the example count and the
metrics, the length of the change, and the predictions on U.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias, TypeGuard

import torch
from torch import Tensor

from ..algorithms.base import Algorithm
from ..core import topk as sparse
from ..core.formats import PredictionFormat
from ..core.messages import Model, TrainResult
from .norms import NormHistory
from .settings import ServerConfig

RefusalKind: TypeAlias = Literal[
    "task", "unreadable", "type", "shape", "dtype", "not_finite", "size", "examples", "metrics", "norm", "late"
]
"""Why an answer is refused, in a word:

task        nobody waits for it: its task is unknown, or already answered, lost or cancelled
unreadable  the transport could not read it
type        a part is missing, or no dense tensor on the server's device without a gradient
shape       a tensor has another shape than the model, the rule or U ask for
dtype       a tensor holds another type of numbers
not_finite  a tensor holds NaN or infinity
size        a number, or a tensor beside the model, is larger than any that is of use
examples    the example count is no whole number from 1 to `MAX_EXAMPLES`
metrics     the metrics are no short list of plain numbers by name
norm        the change is absurdly long
late        the rule takes no update that started from so old a version
"""

MAX_EXAMPLES = 2**40
"""The largest example count that is accepted."""

MAX_METRICS, MAX_METRIC_NAME = 64, 128
"""Metrics in an answer, and characters in the name of one, at most."""

MAX_PREDICTION = 1e6
"""The largest number in a prediction that is accepted: sums of such rows in float64 stay exact enough when one of them
is taken out again."""

_PLAIN = (float, int)
_TENSORS = (Tensor, torch.nn.Parameter)
_LOGITS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an answer is not used."""

    kind: RefusalKind
    reason: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may be used of an answer.

    Attributes:
        result: the answer.
        num_examples: its example count.
        metrics: its metrics, as floats by name.
        delta: [d] the change, against the model that the task started from.
        norm: the change's L2 norm.
        predictions: on U, in the format that the stages want; [0] where they want none.
    """

    result: TrainResult
    num_examples: int
    metrics: Mapping[str, float]
    delta: Tensor
    norm: float
    predictions: Tensor


class Admission:
    """Judges clients' answers.

    Args:
        algorithm: says which vectors its clients report.
        config: the limits.
        judge_norms: whether long changes are refused. Under a stage that bounds each change itself they are not: a
            refusal that depends on the norms of raw changes would tell of data that the stage protects.
        format: of predictions; None where no stage needs any.
        outputs: how many predictions a client makes on U, and of how many classes: (P, C); None does not check.
        predict: makes the predictions of a client's model that came without; asked only for an answer that is
            otherwise admitted.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        config: ServerConfig,
        judge_norms: bool,
        format: PredictionFormat | None,
        outputs: tuple[int, int] | None,
        predict: Callable[[TrainResult], Tensor],
    ) -> None:
        self._reports, self._config, self._judge_norms = algorithm.reports, config, judge_norms
        self._format, self._outputs, self._predict = format, outputs, predict
        self._none = torch.zeros(0)  # the predictions where none are wanted

    def admit(
        self, result: TrainResult, start: Model, client: int, norms: NormHistory, clients: int
    ) -> Admitted | Refusal:
        """Judge an answer to a task of `client` that started from `start`. The length of a change that is admitted, or
        refused for its length relative to others', is added to `norms`."""
        refusal = (
            _fault_of_vector("weights", result.weights, start.weights)
            or _fault_of_vector("buffers", result.buffers, start.buffers)
            or _fault_of_extra(result.extra, self._reports, start.weights)
        )
        if refusal is not None:
            return refusal
        num_examples, metrics = _plain_examples(result.num_examples), _plain_metrics(result.metrics)
        if isinstance(num_examples, Refusal):
            return num_examples
        if isinstance(metrics, Refusal):
            return metrics
        delta = result.weights - start.weights
        norm = float(torch.linalg.vector_norm(delta))
        if not math.isfinite(norm):  # one pass finds NaN and infinity: either makes the norm not finite
            return Refusal("not_finite", "weights are not finite")
        if not _all_finite(result.buffers):
            return Refusal("not_finite", "buffers are not finite")
        if self._judge_norms and (refusal := self._fault_of_norm(client, norm, norms, clients)) is not None:
            return refusal
        predictions = self._predictions(result, start.weights)
        if isinstance(predictions, Refusal):
            return predictions
        if self._judge_norms:
            norms.remember(client, norm, clients)
        return Admitted(result, num_examples, metrics, delta, norm, predictions)

    def _fault_of_norm(self, client: int, norm: float, norms: NormHistory, clients: int) -> Refusal | None:
        limit = self._config.max_change_norm
        if norm > limit:
            return Refusal("norm", f"change has an absurd norm, {norm:.3g} > {limit:.3g}")
        usual = norms.usual
        if norm > self._config.max_change_ratio * usual > 0:
            norms.remember(client, norm, clients)  # a change of regime must not be refused for ever
            return Refusal("norm", f"change has an absurd norm, {norm:.3g}: the usual one is {usual:.3g}")
        return None

    def _predictions(self, result: TrainResult, like: Tensor) -> Tensor | Refusal:
        """The client's outputs on U: those that came with the answer, or else made here."""
        if self._format is None:
            return self._none
        predictions = self._predict(result) if result.predictions is None else result.predictions
        return self._fault_of_predictions(predictions, self._format, like) or predictions

    def _fault_of_predictions(self, predictions: Tensor, format: PredictionFormat, like: Tensor) -> Refusal | None:
        if (refusal := _fault_of_kind("predictions", predictions, like)) is not None:
            return refusal
        if self._outputs is not None:
            number, classes = self._outputs
            want = (number, format.width(classes))
            if tuple(predictions.shape) != want:
                return Refusal("shape", f"predictions have shape {tuple(predictions.shape)}, not {want}")
        if predictions.dtype not in ((torch.int16,) if format.top_k else _LOGITS):
            wanted = "packed" if format.top_k else "logits"
            return Refusal("dtype", f"predictions are {predictions.dtype}: {wanted} are wanted")
        if format.top_k:
            if self._outputs is None or (reason := sparse.fault(predictions, self._outputs[1])) is None:
                return None
            return Refusal("not_finite" if reason.endswith("not finite") else "size", reason)
        if not predictions.numel():
            return None
        low, high = (float(end) for end in torch.aminmax(predictions))
        if not (math.isfinite(low) and math.isfinite(high)):  # NaN is both the smallest and the largest number
            return Refusal("not_finite", "predictions are not finite")
        if max(-low, high) > MAX_PREDICTION:  # such a row would leave a rest in a bank's running sum for ever
            return Refusal("size", f"predictions hold {low if -low > high else high:.3g}, beyond ±{MAX_PREDICTION:g}")
        return None


def _fault_of_kind(name: str, value: object, like: Tensor) -> Refusal | None:
    """Anything but a plain tensor: dense, strided, on the device of `like`, without a gradient or a graph."""
    if type(value) not in _TENSORS:
        got = f"a {type(value).__name__[:40]}"
    else:
        assert isinstance(value, Tensor)
        if value.is_nested or value.layout is not torch.strided or value.is_quantized:
            got = "a tensor that is sparse, nested or quantized"
        elif value.device != like.device:
            got = f"one on {value.device}"
        elif value.requires_grad:
            got = "one that requires gradients"
        else:
            return None
    return Refusal("type", f"{name} must be a dense tensor on {like.device} without gradients; got {got}")


def _fault_of_vector(name: str, value: Tensor, like: Tensor) -> Refusal | None:
    """Anything but a plain tensor of the shape and type of `like`."""
    if value is like:  # a model without buffers: those that it was sent come back
        return None
    if (refusal := _fault_of_kind(name, value, like)) is not None:
        return refusal
    if value.shape != like.shape:
        return Refusal("shape", f"{name} have shape {tuple(value.shape)}, not {tuple(like.shape)}")
    if value.dtype != like.dtype:
        return Refusal("dtype", f"{name} have dtype {value.dtype}, not {like.dtype}")
    return None


def _fault_of_extra(extra: object, reports: tuple[str, ...], weights: Tensor) -> Refusal | None:
    """What the client rule reports: the vectors [d] of `reports`, and other plain numbers or tensors no longer."""
    if type(extra) is not dict and not isinstance(extra, Mapping):
        return Refusal("type", f"extra must be names with values; got a {type(extra).__name__[:40]}")
    for name in reports:
        value = extra.get(name)
        if type(value) not in _TENSORS or not isinstance(value, Tensor):
            return Refusal("type", f"{name} is missing, or not of shape {tuple(weights.shape)}")
        if (refusal := _fault_of_kind(name, value, weights)) is not None:
            return refusal
        if value.shape != weights.shape:
            return Refusal("shape", f"{name} is missing, or not of shape {tuple(weights.shape)}")
        if value.dtype != weights.dtype:
            return Refusal("dtype", f"{name} has dtype {value.dtype}, not {weights.dtype}")
        if not _all_finite(value):
            return Refusal("not_finite", f"{name} is not finite")
    for name, value in extra.items():
        if name in reports:
            continue
        if not isinstance(name, str) or len(name) > MAX_METRIC_NAME:
            return Refusal("type", "extra must be short names with values")
        if (refusal := _fault_of_value(name, value, weights)) is not None:
            return refusal
    return None


def _fault_of_value(name: str, value: object, weights: Tensor) -> Refusal | None:
    """Anything but a finite number or a plain, finite tensor of no more numbers than the model."""
    if isinstance(value, bool):
        return None
    if _number(value):
        return None if _finite(value) else Refusal("not_finite", f"{name!r} is not finite")
    if (refusal := _fault_of_kind(repr(name), value, weights)) is not None:
        return refusal
    assert isinstance(value, Tensor)
    if value.numel() > weights.numel():
        return Refusal("size", f"{name!r} holds {value.numel():,} numbers, more than the model's {weights.numel():,}")
    if value.dtype not in _LOGITS and value.dtype not in _WHOLE:
        return Refusal("dtype", f"{name!r} has dtype {value.dtype}, no usual one")
    return None if _all_finite(value) else Refusal("not_finite", f"{name!r} is not finite")


_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _plain_examples(value: object) -> int | Refusal:
    """The example count as an int."""
    if type(value) is int and 1 <= value <= MAX_EXAMPLES:
        return value
    if not _number(value):
        return Refusal("examples", f"num_examples is a {type(value).__name__[:40]}, not a whole number")
    number = float(value) if _finite(value) else math.nan if value != value else math.inf
    if not 1 <= number <= MAX_EXAMPLES:
        return Refusal("examples", f"num_examples is {number:g}")
    if number != int(number):
        return Refusal("examples", f"num_examples is {number:g}, not a whole number")
    return int(number)


def _plain_metrics(metrics: object) -> dict[str, float] | Refusal:
    """The metrics as floats by name. NaN and infinity are numbers here: they are recorded, and nothing is computed from
    them that the model depends on."""
    if type(metrics) is not dict and not isinstance(metrics, Mapping):
        return Refusal("metrics", f"metrics must be numbers by name; got a {type(metrics).__name__[:40]}")
    if len(metrics) > MAX_METRICS:
        return Refusal("metrics", f"{len(metrics):,} metrics came; at most {MAX_METRICS} are recorded")
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or len(name) > MAX_METRIC_NAME or not name.isprintable():
            return Refusal("metrics", f"a metric's name must be printable and of at most {MAX_METRIC_NAME} characters")
        if not _number(value):
            return Refusal("metrics", f"metric {name!r} is a {type(value).__name__[:40]}, not a number")
        try:
            numbers[name] = float(value)
        except OverflowError:
            return Refusal("metrics", f"metric {name!r} is larger than any float")
    return numbers


def _number(value: object) -> TypeGuard[float]:
    """A real number, of Python's or NumPy's types; truth values are none."""
    return type(value) in _PLAIN or (isinstance(value, Real) and not isinstance(value, bool))


def _finite(value: object) -> bool:
    """Whether a plain number is finite."""
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond all floats
        return False


def _all_finite(value: Tensor) -> bool:
    return not value.numel() or bool(torch.isfinite(value).all())
