"""What the labels of a task are."""

from collections.abc import Mapping
from typing import Final, Literal

# One class per sample; a 0 or 1 for each of several labels; numbers to be met.
LabelKind = Literal["classes", "multi_hot", "targets"]

_OF_TASK: Final[Mapping[str, LabelKind]] = {
    "multi_label": "multi_hot", "regression": "targets", "embedding": "targets",
}


def label_kind(task: str | None) -> LabelKind:
    """What the labels of a task of this kind are; classes where no task is named."""
    return _OF_TASK.get(task or "", "classes")
