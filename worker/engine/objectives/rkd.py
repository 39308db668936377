"""Relational knowledge distillation (Park et al., 2019)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.geometry import directions, mean_over_pairs, nothing_to_compare, pooled
from worker.engine.objectives.views import Views

# Numbers of the largest tensor of angles, 64 MiB of float32: more anchors than fit are seen one lot after another.
MAX_ANGLE_NUMBERS = 2**24


def rkd(views: Views, *, pairs: Sequence[LayerPair], distance_weight: float, angle_weight: float) -> Tensor:
    """Smooth L1 between distances and between angles of the items' vectors; mean over pairs, a scalar.

    Distances are Euclidean and relative to the mean of those between different items. Each part is averaged over all
    B^2 distances or B^3 angles, those of an item with itself among them. 0 for fewer than 2 items.
    """
    compare = partial(_relations, distance_weight=distance_weight, angle_weight=angle_weight)
    return mean_over_pairs(compare(pooled(student), pooled(teacher)) for student, teacher in views.pairs(pairs))


def _relations(student: Tensor, teacher: Tensor, *, distance_weight: float, angle_weight: float) -> Tensor:
    if len(student) < 2:  # noqa: PLR2004 - two items make a distance
        return nothing_to_compare(student)
    apart = functional.smooth_l1_loss(_distances(student), _distances(teacher))
    return distance_weight * apart + angle_weight * _angle_difference(student, teacher)


def _distances(vectors: Tensor) -> Tensor:
    """Distances (B, B) over the mean of those between different items."""
    # By differences: by products, items that are close to each other would lose all digits in float32.
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (len(vectors) * (len(vectors) - 1))
    return distances / torch.where(mean > 0, mean, 1.0)


def _angle_difference(student: Tensor, teacher: Tensor) -> Tensor:
    items = len(student)
    lots = torch.arange(items, device=student.device).split(_anchors_at_once(student, teacher))
    if len(lots) == 1:
        return _angle_losses(student, teacher, lots[0]) / items**3
    # Made again in the backward pass, so that no more than one lot is in memory.
    again = partial(checkpoint, _angle_losses, use_reentrant=False, preserve_rng_state=False)
    return torch.stack([again(student, teacher, lot) for lot in lots]).sum() / items**3


def _anchors_at_once(student: Tensor, teacher: Tensor) -> int:
    items = len(student)
    return max(1, MAX_ANGLE_NUMBERS // (items * max(items, student.shape[1], teacher.shape[1])))


def _angle_losses(student: Tensor, teacher: Tensor, anchors: Tensor) -> Tensor:
    return functional.smooth_l1_loss(_angles(student, anchors), _angles(teacher, anchors), reduction="sum")


def _angles(vectors: Tensor, anchors: Tensor) -> Tensor:
    """Cosines (A, B, B) of the angles at each anchor between the ways to two items."""
    ways = directions(vectors - vectors[anchors][:, None], 2)
    return ways @ ways.mT
