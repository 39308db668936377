"""Students that are the teacher with fewer channels."""

import copy
from collections.abc import Sequence
from math import sqrt

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from stillhouse.contract.failures import StillhouseError, UnderivableStudentError
from stillhouse.contract.spec import Architecture, Narrowed, Pruned
from stillhouse.models import count_parameters, output_tensors
from stillhouse.models.narrowed import narrow
from worker.engine.flops import run_counted
from worker.engine.students.cutting import Pruner
from worker.engine.students.derived import Derived, first_error, frozen_weights, prove_rebuildable

NEAR = 0.02  # part of the wanted ratio: nearer is not worth another probe
MAX_PROBES = 10
# A ratio that is missed by more is refused: at least this, and this part of it.
TOLERANCE, RELATIVE_TOLERANCE = 0.02, 0.1
MAX_REASON = 300
WORDS = {"macs": "multiply-accumulate operations", "parameters": "parameters"}

Size = dict[str, int]  # operations of one batch of examples, and parameters


def derive_narrower(student: Pruned, teacher: nn.Module, architecture: Architecture, example: Tensor) -> Derived:
    """The teacher, pruned to the ratio. How many channels each layer keeps does not depend on the weights.

    Raises UnderivableStudentError for a model that cannot be pruned, or not to this ratio.
    """
    model = copy.deepcopy(teacher).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    example = example.cpu()
    try:
        outputs = [name.rpartition(".")[0] for name in output_tensors(architecture)]
        pruner = Pruner(model, example, list(dict.fromkeys(outputs)))
        search = Search(model, example, pruner, student)
        kept = search.find()
        remark, widths = search.told(kept), pruner.sizes(kept)
        pruner.cut(kept, student.importance)
        with torch.no_grad():
            answer = model.requires_grad_(requires_grad=False)(example)
    except StillhouseError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:MAX_REASON]
        raise UnderivableStudentError(
            f"this teacher cannot be pruned, since a layer of it counts on all of its channels ({reason}); choose a "
            "student of kind layers, or a smaller model by name", param="/student/kind",
        ) from error
    narrowed = _narrowed(architecture, widths)
    weights = frozen_weights(model)
    prove_rebuildable(narrowed, weights, answer, example)
    return Derived(narrowed, weights, [remark])


class Search:
    """Tries how many channels each group may keep, on copies without memory, until the model has the wanted size."""

    def __init__(self, model: nn.Module, example: Tensor, pruner: Pruner, wanted: Pruned) -> None:
        self._sketch = copy.deepcopy(model).to("meta")
        self._example = example.to("meta")
        self._pruner, self._wanted = pruner, wanted
        self._whole = self._measure(copy.deepcopy(self._sketch))
        self._reached: dict[tuple[int, ...], float] = {}

    def find(self) -> tuple[int, ...]:
        """The channels of each group with which the model comes nearest to the ratio.

        Raises UnderivableStudentError when none comes near.
        """
        allowed = max(TOLERANCE, RELATIVE_TOLERANCE * self._wanted.ratio)
        if self._ratio(self._kept(0.0)) <= self._wanted.ratio + allowed:
            few, many = self._same_share()
            if not self._is_near():
                self._mix(few, many)
            if not self._is_near():
                self._tune()
        best = self._nearest()
        if self._misses(best) > allowed:
            raise UnderivableStudentError(self._why_not(), param="/student/ratio")
        return best

    def told(self, kept: Sequence[int]) -> str:
        """What is left, for the log."""
        left = self._size(kept)
        macs, parameters = (left[of] / self._whole[of] for of in ("macs", "parameters"))
        return f"pruned to {macs:.1%} of the teacher's {WORDS['macs']} and {parameters:.1%} of its parameters"

    def _same_share(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Probe one share of channels for all groups; gives the nearest that are too few, and too many."""
        wanted = self._wanted.ratio
        low, high, share = 0.0, 1.0, sqrt(wanted)  # most of the work is that of a width times a width
        for _ in range(MAX_PROBES):
            found = self._ratio(self._kept(share))
            if abs(found - wanted) <= NEAR * wanted:
                break
            low, high = (low, share) if found > wanted else (share, high)
            share *= sqrt(wanted / found)
            if not low < share < high:
                share = (low + high) / 2
        return self._kept(low), self._kept(high)

    def _mix(self, few: tuple[int, ...], many: tuple[int, ...]) -> None:
        """Probe between the two, where layers of one width would all change at once: the last groups keep few."""
        low, high = 0, len(few)
        while high - low > 1:
            middle = (low + high) // 2
            is_too_much = self._ratio((*many[:middle], *few[middle:])) > self._wanted.ratio
            low, high = (low, middle) if is_too_much else (middle, high)

    def _tune(self) -> None:
        """Probe the nearest on either side of the ratio with one group a step wider or narrower."""
        wanted = self._wanted.ratio
        below = max((kept for kept, ratio in self._reached.items() if ratio <= wanted), key=self._ratio, default=())
        above = min((kept for kept, ratio in self._reached.items() if ratio >= wanted), key=self._ratio, default=())
        for kept, sign in ((below, 1), (above, -1)):
            for place, count in enumerate(kept):
                group = self._pruner.groups[place]
                changed = count + sign * group.step(self._wanted.round_to)
                if 0 < changed <= group.width:
                    self._ratio((*kept[:place], changed, *kept[place + 1:]))

    def _kept(self, share: float) -> tuple[int, ...]:
        return tuple(group.num_kept(share, self._wanted.round_to) for group in self._pruner.groups)

    def _ratio(self, kept: tuple[int, ...]) -> float:
        if kept not in self._reached:
            self._reached[kept] = self._size(kept)[self._wanted.of] / self._whole[self._wanted.of]
        return self._reached[kept]

    def _size(self, kept: Sequence[int]) -> Size:
        return self._measure(narrow(copy.deepcopy(self._sketch), self._pruner.sizes(kept)))

    def _measure(self, sketch: nn.Module) -> Size:
        return {"macs": run_counted(sketch, self._example)[1] // 2, "parameters": count_parameters(sketch)}

    def _nearest(self) -> tuple[int, ...]:
        return min(self._reached, key=self._misses)

    def _is_near(self) -> bool:
        return self._misses(self._nearest()) <= NEAR * self._wanted.ratio

    def _misses(self, kept: tuple[int, ...]) -> float:
        return abs(self._reached[kept] - self._wanted.ratio)

    def _why_not(self) -> str:
        wanted, what = self._wanted.ratio, WORDS[self._wanted.of]
        least = self._ratio(self._kept(0.0))
        steps = f"while each layer keeps a multiple of round_to {self._wanted.round_to} channels"
        if least == 1:
            return f"no layer of this teacher can lose channels {steps}; choose another kind of student"
        if wanted < least:
            return (
                f"{wanted:.3g} of the teacher's {what} would leave layers empty: {steps}, {least:.3g} is the least. "
                "Give that or more, a smaller round_to, or a smaller model by name"
            )
        below = max(ratio for ratio in self._reached.values() if ratio < wanted)
        above = min((ratio for ratio in self._reached.values() if ratio > wanted), default=1.0)
        return (
            f"{steps}, this teacher can be pruned to {below:.3g} or {above:.3g} of its {what}, and not to "
            f"{wanted:.3g}; give one of these, or a smaller round_to"
        )


def _narrowed(architecture: Architecture, widths: dict[str, list[int]]) -> Narrowed:
    try:
        return Narrowed(base=architecture, widths=widths)
    except ValidationError as error:
        raise UnderivableStudentError(first_error(error), param="/student") from error
