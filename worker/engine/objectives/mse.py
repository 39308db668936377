"""Regression on the teacher's logits (Ba and Caruana, 2014)."""

from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def mse(views: Views) -> Tensor:
    """(student - teacher)^2 of the logits, mean over items and classes."""
    return functional.mse_loss(wide(views.student), wide(views.soft_labels))
