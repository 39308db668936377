"""What Hugging Face `datasets` says of columns, in its own folders and in the Parquet files that it writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from worker.engine.data.raw import RawLabels, RawSplit

METADATA_KEY: Final = b"huggingface"
# As `datasets` marks what has no label, in the test splits of benchmarks.
_NO_LABEL: Final = -1


def features_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Features by column from the metadata of a schema; none where there are none, or where they are damaged."""
    try:
        features = json.loads((metadata or {})[METADATA_KEY])["info"]["features"]
        return dict(features)
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def with_class_names(raw: RawSplit, labels: Sequence[str] | None, features: Mapping[str, Any]) -> RawSplit:
    """The split with the class names of a ClassLabel, whose -1 is no label; unchanged for other columns."""
    feature = features.get(labels[0]) if labels and len(labels) == 1 else None
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if not isinstance(names, list) or raw.labels is None or raw.labels.values.dtype.kind != "i":
        return raw
    known = raw.labels.values != _NO_LABEL
    known &= True if raw.labels.known is None else raw.labels.known
    numbers = RawLabels(np.where(known, raw.labels.values, 0), known=None if known.all() else known)
    return replace(raw, labels=numbers, label_names=tuple(str(name) for name in names) or None)
