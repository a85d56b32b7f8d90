"""What holds for all tests: one torch thread, and no deadline on a machine that others share."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("fedecho", deadline=None)
settings.load_profile("fedecho")
