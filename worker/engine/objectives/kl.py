"""Hinton's soft labels (Hinton, Vinyals and Dean, 2015), of standardised logits if wanted (Sun and others, 2024)."""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from worker.engine.objectives.views import Views, wide

EPS = 1e-7  # added to a standard deviation


def kl(views: Views, *, temperature: float, standardize: bool = False) -> Tensor:
    """T^2 KL(softmax(teacher/T) || softmax(student/T)), mean over items; a scalar, in nats times T^2."""
    student, teacher = wide(views.student), wide(views.soft_labels_at(temperature))
    return cast("Tensor", _SoftKl.apply(student, teacher, temperature, standardize))


class _SoftKl(torch.autograd.Function):
    """In closed form: about two thirds of the time of autograd's own, where a step is half a millisecond."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, temperature: float, standardize: bool  # noqa: ANN401 - torch's
    ) -> Tensor:
        deviation = None
        if standardize:
            student, deviation = _standardized(student)
            teacher, _ = _standardized(teacher)
        log_student = torch.log_softmax(student / temperature, dim=1)
        log_teacher = torch.log_softmax(teacher / temperature, dim=1)
        soft = log_teacher.exp()
        items = len(student)
        slope = log_student.exp().sub_(soft).mul_(temperature / items)
        ctx.save_for_backward(slope if deviation is None else _before_standardizing(slope, student, deviation))
        return soft.mul_(log_teacher.sub_(log_student)).sum().mul_(temperature**2 / items)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - torch's
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None, None


def _standardized(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C) with mean 0 and unbiased standard deviation 1 per item, and the deviations (N, 1) they had."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    # torch.std takes some twenty times as long on a CPU.
    deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(logits.shape[1] - 1)
    return centred.div_(deviation + EPS), deviation


def _before_standardizing(slope: Tensor, standardized: Tensor, deviation: Tensor) -> Tensor:
    """The gradient at the logits, of one at the standardised logits whose rows add up to 0."""
    scale = deviation + EPS
    along = (slope * standardized).sum(dim=1, keepdim=True) / (slope.shape[1] - 1)
    # An item of equal logits has no deviation: there `along` is 0 too.
    along *= scale / deviation.clamp(min=torch.finfo(deviation.dtype).tiny)
    return (slope - standardized * along).div_(scale)
