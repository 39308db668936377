"""What several terms compute from log-probabilities."""

import torch
from torch import Tensor


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each item, (N,), in nats, from log-probabilities (N, C)."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def other_classes(labels: Tensor, num_classes: int) -> Tensor:
    """The classes beside each item's true one, in order, (N, C - 1) int64."""
    places = torch.arange(num_classes - 1, device=labels.device)
    return places + (places >= labels[:, None])
