"""Teacher, student and control side by side, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.contract.recipes import applied
from stillhouse.contract.report import Curve, Interruption, Report, Scores, Selection, Subject
from stillhouse.contract.spec import Architecture, JobSpec
from stillhouse.contract.status import Phase
from stillhouse.models import describe
from worker.engine.architectures import build_fitted
from worker.engine.checkpoint import Keeper
from worker.engine.course import predict
from worker.engine.data import Part
from worker.engine.export import measure_latency
from worker.engine.export.latency import NUM_THREADS
from worker.engine.feed import normalized_chunks
from worker.engine.numerics import Numerics
from worker.engine.prepared import Prepared
from worker.engine.report import build_report, describe_subject
from worker.engine.state import TrainingState
from worker.engine.tasks import Answered
from worker.engine.teachers import Teacher

MAX_CURVE_POINTS = 500


@dataclass(frozen=True)
class Comparison:
    """What the report is made of."""

    spec: JobSpec
    prepared: Prepared
    student: nn.Module
    subjects: list[Subject]
    trainings: Mapping[Phase, TrainingState]
    device: str

    def report(self, phase_seconds: Mapping[Phase, float], interrupted: Interruption | None = None) -> Report:
        """The report, but for parity."""
        dataset = self.prepared.dataset
        return build_report(
            subjects=self.subjects,
            task=self.spec.task,
            inputs="table" if dataset.is_table else "images",
            num_outputs=self.prepared.num_classes,
            evaluated_on=dataset.evaluated.name,
            selection=Selection(
                metric=self.prepared.metric, split="validation", num_samples=len(dataset.validation.ids)
            ),
            splits=[part.size() for part in dataset.parts],
            label_names=self.prepared.label_names,
            seed=self.spec.seed,
            recipe=applied(self.spec),
            curves=curves(self.trainings),
            phase_seconds={phase.value: round(seconds, 3) for phase, seconds in phase_seconds.items()},
            num_train_samples_seen=self.trainings[Phase.DISTILLING].step * self.prepared.batch_size,
            device=self.device,
            name=self.spec.name,
            interrupted=interrupted,
        )


def compare(spec: JobSpec, prepared: Prepared, teacher: Teacher, keeper: Keeper, device: str) -> Comparison:
    """Score every model; the test split is looked at here and nowhere else."""
    examiner = _Examiner(prepared, keeper.soft_labels, teacher.shares, device)
    trained = keeper.trainings
    student = _selected(trained[Phase.DISTILLING], prepared.student.architecture, device)
    models = {"student": student}
    if Phase.CONTROL in trained:
        models["control"] = _selected(trained[Phase.CONTROL], prepared.student.architecture, device)
    timed = teacher.timed_pass(prepared.one_sample(), NUM_THREADS)
    latencies = measure_latency(models, prepared.one_input(), passes={"teacher": timed} if timed else {})
    states = {"student": trained[Phase.DISTILLING], "control": trained.get(Phase.CONTROL)}
    subjects = [_describe_teacher(teacher, examiner, trained.get(Phase.TEACHER))]
    subjects += [
        _describe(name, models[name], state, prepared, examiner) for name, state in states.items() if state is not None
    ]
    subjects = [subject.model_copy(update={"latency": latencies.get(subject.name)}) for subject in subjects]
    return Comparison(spec, prepared, student, subjects, trained, device)


class _Examiner:
    """Scores models on a split beside the teacher."""

    def __init__(
        self, prepared: Prepared, soft_labels: Mapping[str, Tensor], shares: Tensor | None, device: str
    ) -> None:
        self._prepared, self._device = prepared, device
        self._soft_labels, self._shares = soft_labels, shares
        dataset = prepared.dataset
        self.evaluated, self.validation = dataset.evaluated, dataset.validation

    def of_model(self, model: nn.Module, part: Part) -> Scores:
        numerics = Numerics("float32", "channels_last", self._device)
        inputs = normalized_chunks(part, self._prepared.dataset.preprocessing, self._device)
        return self._score(predict(model, inputs, numerics), part, self._taught(part))

    def of_teacher(self, part: Part) -> Scores:
        """By the answers it gave as teacher. How well it agrees with itself is left out."""
        return self._score(self._taught(part), part)

    def _taught(self, part: Part) -> Tensor:
        return self._prepared.task.consensus(self._soft_labels[part.name].cpu(), self._shares)

    def _score(self, outputs: Tensor, part: Part, teacher: Tensor | None = None) -> Scores:
        answered = Answered(outputs.cpu(), part.labels, part.mask, teacher)
        return self._prepared.task.score(answered, self._prepared.label_names)


def _selected(state: TrainingState, architecture: Architecture, device: str) -> nn.Module:
    model = build_fitted(architecture, device)
    model.load_state_dict(state.selected)
    return model.eval()


def _describe_teacher(teacher: Teacher, examiner: _Examiner, state: TrainingState | None) -> Subject:
    return describe_subject(
        "teacher", teacher.module,
        architecture=teacher.description,
        num_parameters=teacher.num_parameters,
        num_bytes=teacher.num_bytes,
        scores=examiner.of_teacher(examiner.evaluated),
        validation_scores=examiner.of_teacher(examiner.validation),
        selected_step=state.selected_step if state else None,
        last_step=state.step if state else None,
        stopped_early=state.stopped_early if state else False,
    )


def _describe(
    name: str, model: nn.Module, state: TrainingState, prepared: Prepared, examiner: _Examiner
) -> Subject:
    return describe_subject(
        name, model,
        architecture=_in_short(prepared.student.architecture),
        scores=examiner.of_model(model, examiner.evaluated),
        final_scores=examiner.of_model(state.evaluated_model, examiner.evaluated),
        validation_scores=examiner.of_model(model, examiner.validation),
        selected_step=state.selected_step,
        last_step=state.step,
        stopped_early=state.stopped_early,
    )


def _in_short(architecture: Architecture) -> str:
    return describe(architecture, architecture.input_shape or (), architecture.num_classes or 0)


def curves(trainings: Mapping[Phase, TrainingState]) -> list[Curve]:
    """Every metric of every training over its steps, thinned evenly to what a page can show."""
    return [
        _curve(f"{phase.value}/{name}", points)
        for phase, state in trainings.items() for name, points in state.curves.items()
    ]


def _curve(name: str, points: Sequence[Sequence[float]]) -> Curve:
    kept = torch.linspace(0, len(points) - 1, min(len(points), MAX_CURVE_POINTS)).round().int().tolist()
    steps, values = zip(*(points[place] for place in kept), strict=True)
    return Curve(name=name, steps=[int(step) for step in steps], values=list(values))
