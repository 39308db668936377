"""Several teachers that answer as one."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch
from torch import Tensor

from stillhouse.contract.failures import OutputWidthMismatchError
from worker.engine.teachers.teacher import Gives, Teacher


class Ensemble:
    """Averages logits, or probabilities at each term's own temperature, for which all members' answers are given."""

    module: Final = None
    architecture: Final = None

    def __init__(
        self, members: Sequence[Teacher], weights: Sequence[float], average: Literal["probabilities", "logits"]
    ) -> None:
        self.members = members
        self._weights = torch.tensor(weights) / sum(weights)
        kinds = {member.gives for member in members}
        self._is_stacked = average == "probabilities" and "values" not in kinds
        self.gives: Gives = _joint(kinds, is_stacked=self._is_stacked)
        self.num_outputs = members[0].num_outputs

    @property
    def shares(self) -> Tensor | None:
        """Shares (M,) of the members where each answers for itself."""
        return self._weights if self._is_stacked else None

    @property
    def description(self) -> str:
        """In short, for the report."""
        return "ensemble of " + " + ".join(member.description for member in self.members)

    @property
    def num_parameters(self) -> int | None:
        """Of all members, where all tell."""
        return _total([member.num_parameters for member in self.members])

    @property
    def num_bytes(self) -> int | None:
        """Of all members, where all tell."""
        return _total([member.num_bytes for member in self.members])

    @property
    def identity(self) -> dict[str, Any]:
        """Who the members are, and how they are averaged."""
        return {
            "backend": "ensemble", "members": [member.identity for member in self.members],
            "weights": self._weights.tolist(), "stacked": self._is_stacked,
        }

    def timed_pass(self, arranged: Tensor, threads: int) -> Callable[[], object] | None:
        """All members' passes, one after the other, where each has one."""
        passes = [member.timed_pass(arranged, threads) for member in self.members]
        known = [each for each in passes if each is not None]
        return (lambda: [each() for each in known]) if len(known) == len(passes) else None

    def answer(self, arranged: Tensor, given: Tensor | None = None) -> Tensor:
        """(N, M, num_outputs) where probabilities are averaged, else the weighted mean (N, num_outputs)."""
        answers = torch.stack([member.answer(arranged, given) for member in self.members], dim=1)
        if self._is_stacked:
            return answers
        return torch.einsum("nmc,m->nc", answers, self._weights.to(answers))


def join(
    members: Sequence[Teacher], weights: Sequence[float], average: Literal["probabilities", "logits"], param: str
) -> Ensemble:
    """The members as one teacher. Raises OutputWidthMismatchError when they do not have the same outputs."""
    for place, member in enumerate(members):
        if member.num_outputs != members[0].num_outputs:
            raise OutputWidthMismatchError(
                f"this member has {member.num_outputs} outputs, and the first one {members[0].num_outputs}; all "
                "members must know the same classes in the same order",
                param=f"{param}/members/{place}/teacher",
            )
    return Ensemble(members, weights, average)


def _joint(kinds: set[Gives], *, is_stacked: bool) -> Gives:
    if "values" in kinds:
        return "values"
    return "probabilities" if is_stacked or "probabilities" in kinds else "logits"


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
