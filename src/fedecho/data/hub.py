"""Data sets of the Hugging Face hub, or of a local folder in its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import DataError, MissingExtra
from .images import to_grey, to_pixels
from .source import Source, normalised


def load_hub(name: str, cache: Path | None) -> Source:
    try:
        import datasets
    except ImportError:
        raise MissingExtra(f"`dataset` ({name!r})", "hf") from None
    where = name[3:]
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(where, cache_dir=None if cache is None else str(Path(cache) / "hf"))
    except Exception as error:  # each of the hub client's layers raises its own
        reason = str(error).splitlines()[0] if str(error) else ""
        raise DataError(
            f"{name}: `datasets` cannot load it: {type(error).__name__}: {reason}; "
            "check the name and the network, or give a local folder as hf:./folder"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    test_split = next((split for split in ("test", "validation", "valid") if split in splits), None)
    if "train" not in splits or test_split is None:
        raise DataError(f"{name}: its splits are {', '.join(splits)}; `train` and `test` (or `validation`) are needed")
    train, test = splits["train"], splits[test_split]
    images = [column for column, feature in train.features.items() if isinstance(feature, datasets.Image)]
    labels = [column for column, feature in train.features.items() if isinstance(feature, datasets.ClassLabel)]
    usual = [column for column in ("label", "labels", "fine_label") if column in train.features]
    if len(images) != 1 or not (usual or len(labels) == 1):
        raise DataError(
            f"{name}: of its columns {', '.join(train.features)} {images} are images and {labels or usual} labels; "
            "one of each is needed: load it in a function of your own and give `module:function`"
        )
    label = usual[0] if usual else labels[0]
    feature = train.features[label]
    try:
        parts = [[row[images[0]] for row in split.select_columns(images)] for split in (train, test)]
        mode = "L" if all(map(to_grey, parts[0])) else "RGB"
        pixels = [to_pixels(part, mode) for part in parts]
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {error}") from error
    targets = [np.array(split[label][:]) for split in (train, test)]
    most = max(int(part.max()) for part in targets)
    classes = feature.num_classes if isinstance(feature, datasets.ClassLabel) else most + 1
    return normalised(name, pixels[0], targets[0], pixels[1], targets[1], classes)
