"""Teachers that give probabilities: their logarithms stand for logits, which are known only up to a constant."""

import torch
from torch import Tensor

TOLERANCE = 1e-3


def log_probabilities(probabilities: Tensor, floor: float) -> Tensor:
    """Logarithms of rows (N, C), each probability at least the floor, float32. Rows add up to 1 again."""
    floored = probabilities.double().clamp(min=floor)
    return (floored / floored.sum(dim=1, keepdim=True)).log().float()


def are_probabilities(rows: Tensor) -> bool:
    """Whether rows (N, C) look like distributions: not negative, and adding up to 1."""
    if rows.shape[1] < 2 or not rows.is_floating_point():  # noqa: PLR2004 - one output is no distribution
        return False
    adds_up = (rows.double().sum(dim=1) - 1).abs() < TOLERANCE
    return bool((rows >= 0).all()) and bool(adds_up.all())


def count_votes(votes: Tensor, num_classes: int) -> Tensor:
    """Shares (N, C) of the raters' votes (N, R), int64, where -1 is no vote. Rows without a vote are even."""
    counts = torch.zeros(len(votes), num_classes + 1, dtype=torch.float64)
    counts.scatter_add_(1, torch.where(votes < 0, num_classes, votes), torch.ones(votes.shape, dtype=torch.float64))
    counts = counts[:, :num_classes]
    total = counts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1), 1 / num_classes).float()
