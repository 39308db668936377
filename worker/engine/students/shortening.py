"""Students that are the teacher with fewer layers."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from stillhouse.contract.failures import UnbuildableModelError, UnderivableStudentError
from stillhouse.contract.spec import Architecture, Layers, Shortened
from stillhouse.models.shortened import shorten
from worker.engine.students.derived import Derived, first_error, frozen_weights, prove_rebuildable

MAX_REASON = 300
ADVICE = "keep the first layer of a stage, which changes width or size for those behind it"


def derive_shorter(student: Layers, teacher: nn.Module, architecture: Architecture, example: Tensor) -> Derived:
    """The teacher with only the layers that the spec keeps. Raises UnderivableStudentError when they do not fit."""
    model = copy.deepcopy(teacher).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    try:
        shortened = Shortened(base=architecture, keep=student.keep)
        shorten(model, student.keep)
    except (UnbuildableModelError, ValidationError) as error:
        told = first_error(error) if isinstance(error, ValidationError) else error.message
        raise UnderivableStudentError(told, param="/student/keep") from error
    answer = _answer(model, student, example.cpu(), architecture.num_classes or 0)
    weights = frozen_weights(model)
    prove_rebuildable(shortened, weights, answer, example.cpu())
    return Derived(shortened, weights if student.initialize else None, [])


def _answer(model: nn.Module, student: Layers, example: Tensor, num_classes: int) -> Tensor:
    """Logits of the example; says which container does not fit when there are none."""
    ran: list[str] = []  # layers in the order in which they began
    running: list[str] = []
    try:
        with torch.no_grad(), _followed(model, ran, running):
            answer = model(example)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:MAX_REASON]
        path = blamed(list(student.keep), ran)
        raise UnderivableStudentError(
            f"without the layers that were left out of `{path}`, the model breaks in `{running[-1] or 'forward'}`: "
            f"{reason}; {ADVICE}", param=f"/student/keep/{path}",
        ) from error
    if not isinstance(answer, Tensor) or answer.shape != (len(example), num_classes):
        raise UnderivableStudentError("the layers that are left give no logits", param="/student/keep")
    return answer


@contextmanager
def _followed(model: nn.Module, ran: list[str], running: list[str]) -> Iterator[None]:
    """Within, the lists tell which layers have begun, and which of them have not ended."""

    def begin(path: str) -> None:
        ran.append(path)
        running.append(path)

    def end(*_: object) -> None:
        running.pop()

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: begin(path)))
        handles.append(module.register_forward_hook(end))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def blamed(kept: Sequence[str], ran: Sequence[str]) -> str:
    """The shortened container that the last layer to begin is in, else the last one that ran before it."""
    for path in reversed(ran):
        for container in kept:
            if path == container or path.startswith(f"{container}."):
                return container
    return kept[0]
