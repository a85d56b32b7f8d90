"""The data room: labelled data sets, how clients share them, and the public unlabeled set U.

`sources` loads a data set, `fetch` brings it into the cache, `partition` deals it to clients, `unlabeled` makes U.
"""

from .source import Source
from .sources import load

__all__ = ["Source", "load"]
