"""What the engine's `kl` costs beside closed-form and plain autograd functions of the same thing.

`python -m benchmarks.kl_term` prints milliseconds of forward and backward on one thread, by number of classes.
"""

import json
import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.pairs import BATCH, KL
from worker.engine.objectives.kl import kl
from worker.engine.objectives.views import Views

CLASSES = (10, 1000)
ROUNDS = 5
CALLS = 300  # of each in a round

Term = Callable[[Views], Tensor]


class ClosedForm(torch.autograd.Function):
    """T^2 KL with its gradient T (softmax(student/T) - softmax(teacher/T)) / N, written plainly."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ANN401 - torch's
        """The value."""
        log_student = functional.log_softmax(student / temperature, dim=1)
        log_teacher = functional.log_softmax(teacher / temperature, dim=1)
        ctx.save_for_backward((log_student.exp() - log_teacher.exp()) * (temperature / len(student)))
        value = functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
        return value * temperature**2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's
        """The gradient that was made on the way."""
        return ctx.saved_tensors[0] * gradient, None, None


def ours(views: Views) -> Tensor:
    """The engine's term."""
    return kl(views, temperature=KL.temperature)


def closed_form(views: Views) -> Tensor:
    """The function above."""
    value: Tensor = ClosedForm.apply(views.student, views.teacher, KL.temperature)
    return value


def autograd(views: Views) -> Tensor:
    """As most people write it."""
    soft = functional.kl_div(
        functional.log_softmax(views.student / KL.temperature, dim=1),
        functional.softmax(views.soft_labels / KL.temperature, dim=1), reduction="batchmean",
    )
    return soft * KL.temperature**2


TERMS: dict[str, Term] = {"ours": ours, "closed_form": closed_form, "autograd": autograd}


def round_of(classes: int) -> dict[str, float]:
    """Median milliseconds of forward and backward, by term, in an order that changes: what ran before one matters."""
    views = Views(torch.randn(BATCH, classes, requires_grad=True), torch.randn(BATCH, classes))
    seconds: dict[str, list[float]] = {name: [] for name in TERMS}
    for _ in range(CALLS):
        for name, term in random.sample(list(TERMS.items()), len(TERMS)):
            views.student.grad = None
            began = time.perf_counter()
            term(views).backward()
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * median(taken) for name, taken in seconds.items()}


def main() -> None:
    """Print the milliseconds of each round, by number of classes and term."""
    torch.set_num_threads(1)
    round_of(CLASSES[0])
    rounds = {classes: [round_of(classes) for _ in range(ROUNDS)] for classes in CLASSES}
    print(json.dumps({
        classes: {name: [taken[name] for taken in of] for name in TERMS} for classes, of in rounds.items()
    }))


if __name__ == "__main__":
    main()
