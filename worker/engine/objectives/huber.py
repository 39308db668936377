"""Regression on true values of which some are far off (Huber, 1964)."""

from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def huber(views: Views, *, delta: float) -> Tensor:
    """Huber's loss of student - label, mean over outputs, mean over labelled items; a scalar, in their unit squared."""
    student = wide(views.student)
    labels = views.known_labels.view_as(student).to(student.dtype)
    return views.mean_of_labelled(functional.huber_loss(student, labels, delta=delta, reduction="none").mean(dim=1))
