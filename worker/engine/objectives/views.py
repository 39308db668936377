"""What an objective looks at."""

from typing import NamedTuple

from torch import Tensor


class Views(NamedTuple):
    """One batch as the objectives see it. N items, C classes."""

    student: Tensor  # logits (N, C)
    teacher: Tensor | None = None  # logits (N, C), no gradient
    labels: Tensor | None = None  # (N,) int64
    mask: Tensor | None = None  # (N,) bool: which items have a label; all of them where it is None

    @property
    def soft_labels(self) -> Tensor:
        """The teacher's logits, which every feed of an objective that needs them gives."""
        assert self.teacher is not None  # noqa: S101 - ours, not the user's: preflight ran this very objective
        return self.teacher

    @property
    def true_labels(self) -> Tensor:
        """The labels, which every feed of an objective that needs them gives."""
        assert self.labels is not None  # noqa: S101 - ours, not the user's: preflight ran this very objective
        return self.labels


def wide(logits: Tensor) -> Tensor:
    """Logits in at least float32: half precision loses the small probabilities that soft labels are about."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()  # noqa: PLR2004 - bytes of a float32
