"""A strategy for every rule that ships; `fedecho.algorithms` says what each does, with its paper and its settings."""

from __future__ import annotations

from .strategy import Asynchronous


class ACE(Asynchronous):
    """All-client engagement: every client's latest change counts, at every arrival."""

    method = "ace"


class ACED(Asynchronous):
    """ACE with the changes of the recently heard clients only."""

    method = "aced"


class AsyncFedED(Asynchronous):
    """A step at every arrival, smaller the further the model has moved since the client started."""

    method = "asyncfeded"


class AsyncSGD(Asynchronous):
    """Plain asynchronous SGD: a step at every arrival."""

    method = "async_sgd"


class CA2FL(Asynchronous):
    """Buffered aggregation calibrated by every client's last change."""

    method = "ca2fl"


class DelayAdaptiveASGD(Asynchronous):
    """Asynchronous SGD whose step shrinks with the delay."""

    method = "da_asgd"


class DelayAdaptiveFADAS(Asynchronous):
    """FADAS whose step shrinks with the delays in the buffer."""

    method = "fadas_da"


class FADAS(Asynchronous):
    """Buffered aggregation with an adaptive (AMSGrad) server step."""

    method = "fadas"


class FedAC(Asynchronous):
    """Buffered aggregation with prospective momentum and control variates on the clients (needs our client mod)."""

    method = "fedac"


class FedASMU(Asynchronous):
    """The model mixed with every arrival, by its staleness and loss."""

    method = "fedasmu"


class FedAsync(Asynchronous):
    """The model mixed with every arrival, by its staleness; with `mu` above 0 clients need our mod."""

    method = "fedasync"


class FedAvg(Asynchronous):
    """The synchronous yardstick: rounds of `cohort` clients, with over-selection and deadlines."""

    method = "fedavg"


class FedBuff(Asynchronous):
    """Buffered aggregation: a step after every `buffer_size` arrivals, on the mean of their changes."""

    method = "fedbuff"


class FedEcho(Asynchronous):
    """FedBuff, and after each aggregation the model learns what every client last predicted on U.

    Needs `model` and `unlabeled`; the stage's settings begin with `echo_`.
    """

    method = "fedecho"


class FedEchoBalanced(Asynchronous):
    """FedEcho with soft labels only and teachers corrected for the label prior they show on U.

    Needs `model` and `unlabeled`; the stage's settings begin with `balanced_echo_`.
    """

    method = "fedecho_balanced"


class FedEchoCalibrated(Asynchronous):
    """FedEcho with soft labels only and a calibrated teacher, of which the server's own prediction is a part.

    Needs `model` and `unlabeled`; the stage's settings begin with `calibrated_echo_`.
    """

    method = "fedecho_calibrated"


class FedFa(Asynchronous):
    """The mean of a queue of the models that arrived last."""

    method = "fedfa"


class FedRevive(Asynchronous):
    """Asynchronous SGD whose late changes are revived on inputs made from nothing.

    Needs `model`, and `unlabeled` for its shape alone: torch.zeros(0, *shape) does. Settings begin with `fedrevive_`.
    """

    method = "fedrevive"


class Port(Asynchronous):
    """Buffered aggregation weighted by staleness and alignment, with a bound on staleness."""

    method = "port"
