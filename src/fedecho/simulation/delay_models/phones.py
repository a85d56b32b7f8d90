"""Job times of real phones and tablets, by their measured frame rates."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from ...core.keys import Key
from ..job_times import LogNormal
from .base import ClientDelays, DelayModel


@dataclass(frozen=True)
class PhoneDelays(DelayModel):
    """Each client is a phone or tablet drawn from npm `detect-gpu`; its mean job time goes by 1 / frame rate.

    Only the relative speed of the devices is real: it comes from a graphics benchmark, which stands in for training.

    Attributes:
        mean_s: mean job time of the median device, seconds.
        job_sigma: spread between the jobs of one client: the standard deviation of their logarithm. The default is
            ours.
    """

    name: ClassVar[str] = "phones"

    mean_s: float = 1.0
    job_sigma: float = 0.25

    def delays(self, clients: int, key: Key) -> ClientDelays:
        # A device of rate 0 is an entry of the list that was never measured.
        relative = [1 / rate for rate in _device_fps() if rate > 0]
        unit_s = self.mean_s / median(relative)
        devices = (key.fold("device", client).below(len(relative)) for client in range(clients))
        return ClientDelays([LogNormal(unit_s * relative[device], self.job_sigma) for device in devices])


def _device_fps() -> list[float]:
    from ...data.devices import device_fps  # only phones need the data room

    return [float(rate) for rate in device_fps()]
