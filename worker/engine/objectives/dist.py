"""Correlation with a stronger teacher (Huang and others, 2022)."""

import torch
from torch import Tensor

from worker.engine.objectives.views import Views, wide

EPS = 1e-8  # added, as published; where it is a lower bound instead, values differ in the fourth digit


def dist(views: Views, *, beta: float, gamma: float, temperature: float) -> Tensor:
    """T^2 (beta (1 - correlation of each item's classes) + gamma (1 - correlation of each class's items)); a scalar.

    Means over items and over classes, of softmax probabilities at T. One item has no correlation between items: the
    second part is left out then.
    """
    student = torch.softmax(wide(views.student) / temperature, dim=1)
    teacher = torch.softmax(wide(views.soft_labels_at(temperature)) / temperature, dim=1)
    apart = beta * (1 - _correlation(student, teacher, dim=1).mean())
    if len(student) > 1:
        apart = apart + gamma * (1 - _correlation(student, teacher, dim=0).mean())
    return apart * temperature**2


def _correlation(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Pearson's, along an axis of two matrices."""
    left = left - left.mean(dim=dim, keepdim=True)
    right = right - right.mean(dim=dim, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(left, dim=dim) * torch.linalg.vector_norm(right, dim=dim)
    return (left * right).sum(dim=dim) / (lengths + EPS)
