"""Directions of outputs, as in DistilBERT (Sanh et al., 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.views import Views


def cosine(views: Views, *, pairs: Sequence[LayerPair] = ()) -> Tensor:
    """1 - cos(student, teacher) of each item's outputs, mean over items and pairs; a scalar."""
    distances = [
        1 - functional.cosine_similarity(student.flatten(1), teacher.flatten(1)).mean()
        for student, teacher in views.pairs(pairs)
    ]
    return torch.stack(distances).mean()
