"""The plan of a job: what preflight found, and what one batch through student and terms tells of the rest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.contract.events import Noted
from stillhouse.contract.plan import (
    MAX_LISTED,
    Alternative,
    ClassCount,
    MemoryNeeds,
    ModelCost,
    Note,
    Plan,
    PlannedData,
    PlannedSplit,
    PlannedTerm,
    SoftLabels,
    TimeNeeds,
)
from stillhouse.contract.plan import Numerics as PlannedNumerics
from stillhouse.contract.recipes import applied
from stillhouse.contract.spec import JobSpec, Objective, Term, TrainTeacher
from stillhouse.contract.status import Phase
from stillhouse.models import count_parameters, describe
from worker.engine.architectures import build_fitted
from worker.engine.course import Course
from worker.engine.courses import Courses
from worker.engine.data import Dataset, Part
from worker.engine.feed import fits_normalized
from worker.engine.memory import available_bytes, installed_bytes, num_moments
from worker.engine.numerics import Numerics
from worker.engine.prepared import Prepared
from worker.engine.report import environment
from worker.engine.softlabels import LabelMode
from worker.engine.state import TrainingState
from worker.engine.teachers import Teacher

FLOAT_BYTES = torch.float32.itemsize


@dataclass(frozen=True)
class Rehearsal:
    """The first batch, forward, before the first step."""

    terms: list[PlannedTerm]
    activation_bytes: int


def make_plan(
    spec: JobSpec, prepared: Prepared, courses: Courses, teacher: Teacher, tried: Mapping[Numerics, float],
    expected: Mapping[Phase, float],
) -> Plan:
    """What a job that passed preflight would do and take. Runs its first batch through student and every term.

    `tried` are the seconds of a step by each way to compute that was measured, `expected` those of each phase.
    """
    device = courses.numerics.device
    objective = _without_ramps(spec.effective_objective)
    course = courses.student(teacher, {}, rehearsed=True, objective=objective)
    state = course.begin(device)  # the student's own first weights
    sample = prepared.one_input().to(device)
    rehearsal = rehearse(course, state, objective)
    memory = memory_needs(spec, prepared, state.model, teacher, rehearsal, device)
    module = teacher.module
    return Plan(
        teacher=None if module is None else model_cost(module, teacher.description, sample),
        student=model_cost(state.model, _in_short(prepared), course.numerics.inputs(sample)),
        data=_data(prepared),
        recipe=applied(spec),
        terms=rehearsal.terms,
        soft_labels=_soft_labels(prepared.mode),
        numerics=_numerics(courses.numerics, tried, state.model),
        memory=memory,
        seconds=_seconds(course, expected),
        batch_size=prepared.batch_size,
        environment=environment(device),
        notes=list(_notes(spec, prepared, memory, course, sum(expected.values()))),
    )


def rehearse(course: Course, state: TrainingState, objective: Objective) -> Rehearsal:
    """The value and the pull of each term on the first batch, and what the forward pass keeps for the way back."""
    state.model.train()
    batch = course.batch(0)
    with _kept_bytes(state.parameters) as kept:
        views = course.look(state, batch)
        values = course.loss(views, 1.0)
    shares = course.loss.gradient_shares(values, views, 1.0)
    return Rehearsal(
        terms=[
            PlannedTerm(
                name=term.name or term.kind, kind=term.kind, weight=term.weight, value=_finite(value),
                gradient_share=_finite(share),
            )
            for term, value, share in zip(objective.active, values[1:], shares, strict=True)
        ],
        activation_bytes=sum(kept.values()),
    )


def tell_ranks(course: Course, num_ranks: int) -> Noted:
    """What of the training looks at one process's share of a batch alone, where so many share each."""
    apart = [f"the term {name}" for name in course.loss.relational_names]
    modules = build_fitted(course.learner.architecture, "cpu").modules()
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):  # noqa: SLF001 - no public base
        apart.append("batch normalisation")
    if course.loss.needs_labels and course.is_partly_labelled:
        apart.append("the mean over labelled samples")
    share = course.batches.batch_size // num_ranks
    looks = "look" if len(apart) > 1 else "looks"
    what = f" {', '.join(apart)} {looks} at each device's {share} alone." if apart else ""
    return Noted(
        code="ranks", message=f"{num_ranks} devices share each batch of {course.batches.batch_size} samples.{what}",
        data={"num_devices": num_ranks, "per_device": apart},
    )


def model_cost(model: nn.Module, architecture: str, sample: Tensor) -> ModelCost:
    """What the model costs, with one forward pass of a sample (1, *input_shape) counted."""
    return ModelCost(
        architecture=architecture, num_parameters=count_parameters(model), num_bytes=_state_bytes(model),
        macs=count_macs(model, sample),
    )


@torch.no_grad()
def count_macs(model: nn.Module, sample: Tensor) -> int:
    """Multiply-accumulate operations of a forward pass in evaluation mode; the mode is left as it was."""
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(sample)
    model.train(was_training)
    flops: int = counter.get_total_flops()
    return flops // 2


def memory_needs(
    spec: JobSpec, prepared: Prepared, student: nn.Module, teacher: Teacher, rehearsal: Rehearsal, device: str
) -> MemoryNeeds:
    """What training the student takes on the device, in bytes."""
    trained = sum(parameter.nbytes for parameter in student.parameters())
    state = _state_bytes(student)
    of_teacher = (teacher.num_bytes or 0) if teacher.module is None else _state_bytes(teacher.module)
    parts = {
        "weights": state, "gradients": trained, "optimizer": num_moments(spec.effective_training) * trained,
        "average": state if spec.effective_training.ema_decay else 0, "copies": 2 * state,
        "activations": rehearsal.activation_bytes, "teacher": of_teacher,
        "samples": _sample_bytes(spec, prepared.dataset),
    }
    available, total = _room(device)
    return MemoryNeeds(**parts, total=sum(parts.values()), available=available, device_total=total)


def _in_short(prepared: Prepared) -> str:
    return describe(prepared.student.architecture, prepared.dataset.input_shape, prepared.num_classes)


def _without_ramps(objective: Objective) -> Objective:
    """The objective as it is once every weight and temperature is what the spec gives."""
    return objective.model_copy(update={"terms": [_without_ramp(term) for term in objective.terms]})


def _without_ramp(term: Term) -> Term:
    ramps = [name for name in type(term).model_fields if name.endswith("_ramp")]
    return term.model_copy(update=dict.fromkeys(ramps))


@contextmanager
def _kept_bytes(own: Sequence[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes of each memory that autograd keeps for the way back, by its address; weights (`own`) do not count."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def _state_bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _sample_bytes(spec: JobSpec, dataset: Dataset) -> int:
    """Samples as they are decoded, and as float32 where they are kept normalised."""
    train = dataset.train.samples.arranged
    is_kept = spec.effective_training.augmentation is None and fits_normalized(train)
    num_normalized = len(dataset.validation.ids) + (len(train) if is_kept else 0)
    decoded = sum(samples.arranged.nbytes for samples in dataset.given().values())
    return decoded + num_normalized * train[0].numel() * FLOAT_BYTES


def _room(device: str) -> tuple[int | None, int | None]:
    """Bytes of the device that are free, and that it has."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)
    return available_bytes(), installed_bytes()


def _data(prepared: Prepared) -> PlannedData:
    dataset, preprocessing = prepared.dataset, prepared.dataset.preprocessing
    normalization = preprocessing.normalization
    return PlannedData(
        task=prepared.task.kind, layout=preprocessing.layout, input_shape=list(dataset.input_shape),
        dtype=preprocessing.dtype, scale=normalization.scale, mean=normalization.mean[:MAX_LISTED],
        std=normalization.std[:MAX_LISTED], num_classes=prepared.num_classes,
        splits=[_split(part, prepared.label_names) for part in dataset.parts],
    )


def _split(part: Part, label_names: Sequence[str]) -> PlannedSplit:
    counts: list[int] = []
    labels = part.labels if part.mask is None or part.labels is None else part.labels[part.mask]
    if labels is not None and not labels.is_floating_point():
        counts = torch.bincount(labels, minlength=len(label_names))[:MAX_LISTED].tolist()
    return PlannedSplit(
        **part.size().model_dump(),
        class_counts=[
            ClassCount(label=name, num_samples=count) for name, count in zip(label_names, counts, strict=False)
        ],
    )


def _soft_labels(mode: LabelMode) -> SoftLabels:
    told = "none" if not mode.is_needed else "online" if mode.is_online else "stored"
    return SoftLabels(mode=told, views=mode.stored_views, reason=mode.why)


def _numerics(chosen: Numerics, tried: Mapping[Numerics, float], student: nn.Module) -> PlannedNumerics:
    has_images = any(parameter.ndim == 4 for parameter in student.parameters())  # noqa: PLR2004 - a kernel of images
    return PlannedNumerics(
        precision=chosen.precision,
        memory_format=chosen.memory_format if has_images else "contiguous",
        alternatives=[
            Alternative(**way.facts(), seconds_per_step=took) for way, took in tried.items() if way != chosen
        ],
    )


def _seconds(course: Course, expected: Mapping[Phase, float]) -> TimeNeeds:
    return TimeNeeds(
        seconds_per_step=expected[Phase.DISTILLING] / course.total_steps, num_steps=course.total_steps,
        phases={phase.value: expected[phase] for phase in Phase if phase in expected},
        total=sum(expected.values()),
    )


def _notes(
    spec: JobSpec, prepared: Prepared, memory: MemoryNeeds, course: Course, seconds: float
) -> Iterator[Note]:
    for noted in prepared.notes():
        if noted.code not in {"data_read", "soft_labels"}:  # the plan's `data` and `soft_labels` say it
            yield Note.model_validate(noted.model_dump(exclude={"type"}))
    if spec.devices > 1:
        shared = tell_ranks(course, spec.devices)
        yield Note(
            code=shared.code, data=shared.data,
            message=f"{shared.message} Memory and seconds are told for one device that takes whole batches.",
        )
    if isinstance(spec.teacher, TrainTeacher):
        yield Note(
            code="teacher_untrained",
            message="The job trains its teacher first; terms that compare with it are told for a teacher that has "
            "learned nothing.",
        )
    if memory.available is not None and memory.total > memory.available:
        yield Note(
            level="warning", code="memory_short",
            message=f"Training takes about {memory.total:,} bytes, and {memory.available:,} were free when this was "
            "measured.",
        )
    if spec.max_runtime is not None and seconds > spec.max_runtime:
        yield Note(
            level="warning", code="max_runtime_short",
            message=f"The job takes about {seconds:,.0f} s, and its max_runtime is {spec.max_runtime:,.10g} s.",
        )


def _finite(value: Tensor) -> float | None:
    return float(value.detach()) if bool(value.isfinite()) else None
