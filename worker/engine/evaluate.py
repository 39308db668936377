"""How well a model answers, by torchmetrics."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional import classification as metrics

from stillhouse.contract.report import ClassScore, Scores
from worker.engine.objectives import OBJECTIVES, Views

NUM_BINS = 15
# Beyond this, scores by class and the confusion matrix would be larger than the report may be.
MAX_DETAILED_CLASSES = 256


def score(
    logits: Tensor, *, labels: Tensor | None, teacher: Tensor | None, label_names: Sequence[str],
    mask: Tensor | None = None,
) -> Scores:
    """Scores of logits (N, C) against labels (N,), where the mask (N,) says that there are, and teacher (N, C)."""
    scores = Scores()
    if labels is not None and (mask is None or bool(mask.any())):
        kept = slice(None) if mask is None else mask
        scores = scores.model_copy(update=_against_labels(logits[kept], labels[kept], label_names))
    if teacher is not None:
        scores = scores.model_copy(update=_against_teacher(logits, teacher))
    return scores


def _against_teacher(logits: Tensor, teacher: Tensor) -> dict[str, float]:
    return {
        "agreement": float((logits.argmax(1) == teacher.argmax(1)).double().mean()),
        "kl_from_teacher": float(OBJECTIVES["kl"](Views(logits.double(), teacher.double()), temperature=1.0)),
    }


def _against_labels(logits: Tensor, labels: Tensor, label_names: Sequence[str]) -> dict[str, object]:
    classes, answers = len(label_names), logits.argmax(1)
    macro = {
        f"{name}_macro": float(metric(answers, labels, num_classes=classes, average="macro"))
        for name, metric in _SHARES.items()
    }
    return {
        "accuracy": float((answers == labels).double().mean()),
        "num_errors": int((answers != labels).sum()),
        "cross_entropy": float(functional.cross_entropy(logits.double(), labels)),
        "calibration_error": float(
            metrics.multiclass_calibration_error(logits.softmax(1), labels, num_classes=classes, n_bins=NUM_BINS)
        ),
        **macro,
        **(_by_class(answers, labels, label_names) if classes <= MAX_DETAILED_CLASSES else {}),
    }


_SHARES = {
    "precision": metrics.multiclass_precision, "recall": metrics.multiclass_recall, "f1": metrics.multiclass_f1_score,
}


def _by_class(answers: Tensor, labels: Tensor, label_names: Sequence[str]) -> dict[str, object]:
    classes = len(label_names)
    columns = {
        name: metric(answers, labels, num_classes=classes, average=None).tolist() for name, metric in _SHARES.items()
    }
    support = torch.bincount(labels, minlength=classes).tolist()
    return {
        "per_class": [
            ClassScore(
                label=label_names[number], support=support[number],
                **{name: values[number] for name, values in columns.items()},
            )
            for number in range(classes)
        ],
        "confusion": metrics.multiclass_confusion_matrix(answers, labels, num_classes=classes).tolist(),
    }
