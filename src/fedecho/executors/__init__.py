"""Executors compute jobs for the transports that do so themselves.

A job's inputs are fixed when it is submitted, so when it is computed, and by whom, is the executor's to choose.
"""

from .auto import Auto
from .base import Executor
from .inline import Inline
from .processes import Processes
from .ray import Ray
from .vectorized import Vectorized

EXECUTORS = {"inline": Inline, "processes": Processes, "auto": Auto, "vectorized": Vectorized, "ray": Ray}


__all__ = ["EXECUTORS", "Auto", "Executor", "Inline", "Processes", "Ray", "Vectorized"]
