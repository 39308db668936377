"""Cross-entropy with the true labels."""

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def cross_entropy(views: Views, *, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(student)[label], mean over labelled items, in nats; 0 where no item has a label."""
    if views.mask is None:
        return functional.cross_entropy(wide(views.student), views.true_labels, label_smoothing=label_smoothing)
    # Unlabelled items are taken out before the sum: whatever stands in their label counts for nothing.
    labels = torch.where(views.mask, views.true_labels, 0)
    per_item = functional.cross_entropy(
        wide(views.student), labels, label_smoothing=label_smoothing, reduction="none"
    )
    return torch.where(views.mask, per_item, 0).sum() / views.mask.sum().clamp(min=1)
