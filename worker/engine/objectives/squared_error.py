"""Regression on true values."""

from torch import Tensor

from worker.engine.objectives.views import Views, wide


def squared_error(views: Views) -> Tensor:
    """(student - label)^2, mean over outputs, mean over labelled items; a scalar, in the outputs' unit squared."""
    student = wide(views.student)
    labels = views.known_labels.view_as(student).to(student.dtype)
    return views.mean_of_labelled((student - labels).square().mean(dim=1))
