"""Students that are made from the teacher."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from stillhouse.contract.failures import UnderivableStudentError
from stillhouse.contract.spec import Architecture
from stillhouse.models import build_with

# Of the answers of the student and of what its bundle will be built as: they are the same but for rounding.
TOLERANCE = 1e-4


class Derived(NamedTuple):
    """A student: its complete architecture, its first weights (None: random ones), and remarks for the job's log."""

    architecture: Architecture
    weights: dict[str, Tensor] | None
    remarks: list[str]


def frozen_weights(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a model, as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def prove_rebuildable(
    architecture: Architecture, weights: Mapping[str, Tensor], answer: Tensor, example: Tensor
) -> None:
    """Raise UnderivableStudentError unless a model built of architecture and weights alone gives this answer."""
    try:
        rebuilt = build_with(architecture, weights).eval()
        with torch.no_grad():
            again = rebuilt(example)
    except Exception as error:
        raise UnderivableStudentError(f"what is left of the teacher cannot be built again: {error}") from error
    if again.shape != answer.shape or not torch.allclose(again, answer, rtol=TOLERANCE, atol=TOLERANCE):
        raise UnderivableStudentError("what is left of the teacher answers otherwise when it is built again")


def first_error(error: ValidationError) -> str:
    """What pydantic found wrong, in short."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")
