"""Hinton's soft labels (Hinton, Vinyals and Dean, 2015)."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from worker.engine.objectives.views import Views, wide


def kl(views: Views, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher/T) || softmax(student/T)), mean over items; a scalar, in nats times T^2."""
    return cast("Tensor", _SoftKl.apply(wide(views.student), wide(views.soft_labels), temperature))


class _SoftKl(torch.autograd.Function):
    """In closed form: about two thirds of the time of autograd's own, where a step is half a millisecond."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ANN401 - torch's
        log_student = torch.log_softmax(student / temperature, dim=1)
        log_teacher = torch.log_softmax(teacher / temperature, dim=1)
        soft = log_teacher.exp()
        items = len(student)
        ctx.save_for_backward(log_student.exp().sub_(soft).mul_(temperature / items))
        return soft.mul_(log_teacher.sub_(log_student)).sum().mul_(temperature**2 / items)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None
