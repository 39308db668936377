"""Regression on the teacher's outputs (Ba and Caruana, 2014)."""

from torch import Tensor
from torch.nn import functional

from worker.engine.objectives.views import Views, wide


def mse(views: Views) -> Tensor:
    """(student - teacher)^2 of the outputs, mean over items and outputs; a scalar, in the outputs' unit squared."""
    return functional.mse_loss(wide(views.student), wide(views.mean_outputs))
