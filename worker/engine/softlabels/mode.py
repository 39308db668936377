"""When the teacher is asked, as the spec says or, where it leaves that open, by what costs less."""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from stillhouse.contract.events import Noted
from stillhouse.contract.spec import JobSpec, OnlineSoftLabels, ViewedSoftLabels

# What `auto` asks of views before it stores them instead of showing new ones in every epoch.
MIN_AUTO_VIEWS: Final = 8
MAX_AUTO_BYTES: Final = 4 * 1024**3
_BYTES_PER_OUTPUT: Final = 2  # of a float16


class Cost(NamedTuple):
    """What the decision weighs. Operations, not seconds: the number of views decides the weights."""

    num_samples: int
    num_outputs: int  # of one answer, all members of an ensemble together
    student_flops: int  # of a training step, per sample
    teacher_flops: int | None  # of an answer, per sample; None where nobody can count


@dataclass(frozen=True)
class LabelMode:
    """When the teacher is asked, and why."""

    num_views: int | None  # None: at every step
    why: str
    is_needed: bool = True  # whether a term asks the teacher at all

    @property
    def is_online(self) -> bool:
        """Whether the teacher answers every batch as it comes."""
        return self.is_needed and self.num_views is None

    @property
    def stored_views(self) -> int:
        """How many views of the training split are stored."""
        return self.num_views or 0 if self.is_needed else 0

    def note(self) -> Noted:
        """The decision for a reader of the log."""
        data: dict[str, Any] = {"mode": "online" if self.is_online else "stored", "views": self.num_views}
        return Noted(code="soft_labels", message=self.why, data=data)


def decide(spec: JobSpec, cost: Cost) -> LabelMode:
    """What the spec comes to."""
    chosen, augmentation = spec.effective_soft_labels, spec.effective_training.augmentation
    if not spec.effective_objective.needs_teacher:
        return LabelMode(None, "No term asks the teacher about the training split.", is_needed=False)
    if why := _why_online(spec):
        return LabelMode(None, f"The teacher answers every batch{why}")
    if augmentation is None:
        return LabelMode(1, "The teacher is asked once for each sample: nothing is augmented.")
    if isinstance(chosen, ViewedSoftLabels):
        views = min(chosen.views, spec.effective_training.epochs)
        whose = "spec" if chosen is spec.soft_labels else "recipe"
        return LabelMode(
            views, f"The teacher is asked once for each of {views} views of a sample, as the {whose} asks."
        )
    return _weigh(cost, spec.effective_training.epochs)


def _why_online(spec: JobSpec) -> str | None:
    """Why storing is out of the question; None where it is not."""
    if spec.effective_objective.needs_features:
        return ": terms look at its layers, which no store holds."
    if isinstance(spec.effective_soft_labels, OnlineSoftLabels):
        return ", as the spec asks."
    return ": its answers come with the data." if spec.teacher.kind == "soft_labels" else None


def _weigh(cost: Cost, epochs: int) -> LabelMode:
    if cost.teacher_flops is None:
        return LabelMode(None, "The teacher answers every batch: what it costs to ask cannot be counted beforehand.")
    views = _halving(cost.student_flops, cost.teacher_flops, epochs)
    size = cost.num_samples * cost.num_outputs * _BYTES_PER_OUTPUT
    views = min(views, MAX_AUTO_BYTES // max(size, 1))
    if views < MIN_AUTO_VIEWS:
        return LabelMode(
            None,
            f"The teacher answers every batch: storing {MIN_AUTO_VIEWS} views of each sample or more would not halve "
            f"the work of {epochs} epochs, or take more than {MAX_AUTO_BYTES >> 30} GiB.",
        )
    return LabelMode(
        views,
        f"The teacher is asked once for each of {views} views of a sample: that halves the work of {epochs} epochs "
        "against asking it at every step.",
    )


def _halving(student: int, teacher: int, epochs: int) -> int:
    """The most views V with epochs * student + V * teacher <= epochs * (student + teacher) / 2; may be negative."""
    return epochs * (teacher - student) // (2 * max(teacher, 1))
