"""Which layers can be laid over each other, and what brings the student's channels to the teacher's."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.failures import IncompatibleLayersError
from stillhouse.contract.spec import LayerPair
from worker.engine.objectives.views import Shapes

# Number of axes of one item.
VECTOR, TOKENS, MAP = 1, 2, 3
MAPS_AXES = 4  # the batch's included

_FORMS = {VECTOR: "a vector", TOKENS: "tokens [positions, channels]", MAP: "a map [channels, height, width]"}


class Match(NamedTuple):
    """Shapes of one item of two layers with the same axes."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    pointer: str  # of the pair, from the term

    @property
    def axes(self) -> int:
        """VECTOR, TOKENS or MAP."""
        return len(self.student)

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of student and teacher."""
        place = 0 if self.axes == MAP else -1
        return self.student[place], self.teacher[place]


def match_pairs(pairs: Sequence[LayerPair], shapes: Shapes, *, read: Sequence[int]) -> list[Match]:
    """The shapes of each pair; those of the models' own outputs where there is none. `read`: axes that the term reads.

    Raises IncompatibleLayersError, whose `param` is a pointer from the term (`/pairs/0`), where they have not the same
    axes or other ones than the term reads.
    """
    if not pairs:
        return [Match((shapes.num_outputs,), (shapes.num_outputs,), "/pairs")]
    matches = [
        Match(shapes.student[pair.student], shapes.teacher[pair.teacher], f"/pairs/{place}")
        for place, pair in enumerate(pairs)
    ]
    for match, pair in zip(matches, pairs, strict=True):
        _check(match, pair, read)
    return matches


def project(kind: str, match: Match) -> nn.Module:
    """What maps the student's channels to the teacher's, as the field `projection` says.

    Raises IncompatibleLayersError where it is `none` and they are not as many.
    """
    student, teacher = match.widths
    if kind == "none" and student != teacher:
        raise IncompatibleLayersError(
            f"the student's layer has {student} channels and the teacher's {teacher}, and projection is none; set it "
            "to auto, learned or fixed", param=match.pointer
        )
    if kind == "none" or (kind == "auto" and student == teacher):
        return nn.Identity()
    return FixedProjection(student, teacher) if kind == "fixed" else linear(match.axes, student, teacher)


def linear(axes: int, width_in: int, width_out: int) -> nn.Module:
    """A learned linear map of the channels: a 1x1 convolution of maps."""
    return nn.Conv2d(width_in, width_out, kernel_size=1) if axes == MAP else nn.Linear(width_in, width_out)


class FixedProjection(nn.Module):
    """A random orthogonal map of the channels, drawn from torch's default generator, that does not learn."""

    weight: Tensor

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.register_buffer("weight", nn.init.orthogonal_(torch.empty(width_out, width_in)))

    def forward(self, features: Tensor) -> Tensor:
        """The features with `width_out` channels."""
        if features.ndim == MAPS_AXES:
            return functional.conv2d(features, self.weight[:, :, None, None])
        return functional.linear(features, self.weight)


def _check(match: Match, pair: LayerPair, read: Sequence[int]) -> None:
    student, teacher = list(match.student), list(match.teacher)
    shapes = f"{pair.student} of the student gives {student}, {pair.teacher} of the teacher {teacher}"
    if len(student) != len(teacher):
        raise IncompatibleLayersError(
            f"{shapes}: they cannot be laid over each other. Choose two layers of the same form, such as both before "
            "or both behind the pooling, or a term that takes any two: rkd, sp, pkt, cka or crd", param=match.pointer
        )
    if match.axes not in read:
        forms = " or ".join(_FORMS[axes] for axes in read)
        raise IncompatibleLayersError(f"{shapes}, and the term reads {forms}; choose such layers", param=match.pointer)
