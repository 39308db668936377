"""How the labels are spread over the classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.contract.events import Noted
from worker.engine.data.dataset import Dataset, Part

# From here on plain accuracy hides what happens to the rare classes.
UNBALANCED = 10
MAX_NAMED = 5


@dataclass(frozen=True)
class ClassCounts:
    """Labels of one split."""

    split: str
    counts: Tensor  # (C,) samples of each class; of several labels, samples to which each applies
    num_unlabelled: int

    @property
    def missing(self) -> list[int]:
        """Classes without a sample."""
        numbers: list[int] = (self.counts == 0).nonzero().squeeze(1).tolist()
        return numbers

    @property
    def imbalance(self) -> float:
        """Samples of the largest class for each one of the smallest that has any."""
        present = self.counts[self.counts > 0]
        return float(present.max() / present.min()) if len(present) else 1.0


def count_classes(dataset: Dataset, num_classes: int) -> list[ClassCounts]:
    """Of every labelled split; none of a regression or an embedding."""
    return [
        ClassCounts(part.name, _counts(part, num_classes), 0 if part.mask is None else int((~part.mask).sum()))
        for part in dataset.parts if part.labels is not None and dataset.label_kind != "targets"
    ]


def describe_classes(dataset: Dataset, label_names: Sequence[str]) -> Iterator[Noted]:
    """What is worth knowing before training: splits that lack classes, imbalance, and samples without a label."""
    for split in count_classes(dataset, len(label_names)):
        if split.num_unlabelled:
            yield Noted(
                code="unlabelled_samples",
                message=f"{split.num_unlabelled:,} samples of {split.split} have no label: they teach by what the "
                "teacher says of them, and count for no score against labels.",
                data={"split": split.split, "unlabelled": split.num_unlabelled},
            )
        if split.missing:
            named = ", ".join(str(label_names[number]) for number in split.missing[:MAX_NAMED])
            more = f" and {len(split.missing) - MAX_NAMED} more" if len(split.missing) > MAX_NAMED else ""
            yield Noted(
                level="warning", code="classes_missing",
                message=f"No sample of {split.split} is labelled {named}{more}.",
                data={"split": split.split, "missing": len(split.missing)},
            )
        if split.split == "train" and split.imbalance >= UNBALANCED:
            yield _imbalance(split, label_names)


def _imbalance(split: ClassCounts, label_names: Sequence[str]) -> Noted:
    counts = split.counts
    most, least = int(counts.argmax()), int(torch.where(counts > 0, counts, counts.max() + 1).argmin())
    return Noted(
        level="warning", code="classes_unbalanced",
        message=f"{label_names[most]} has {int(counts[most]):,} training samples and {label_names[least]} has "
        f"{int(counts[least]):,}: look at the scores by class, and consider training.balanced_sampling.",
        data={"largest": int(counts[most]), "smallest": int(counts[least])},
    )


def _counts(part: Part, num_classes: int) -> Tensor:
    labels, mask = part.labels, part.mask
    assert labels is not None  # noqa: S101 - asked before
    known = labels if mask is None else labels[mask]
    return known.sum(dim=0).long() if known.ndim > 1 else torch.bincount(known, minlength=num_classes)
