"""The engine's one entry: preflight, teacher, soft labels, student, control, evaluation, export."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from stillhouse.contract.events import Finished, Noted, Stopped, TrainerEvent
from stillhouse.contract.failures import OutOfMemoryError
from stillhouse.contract.lending import LabelStore
from stillhouse.contract.spec import JobSpec, TrainTeacher
from stillhouse.contract.status import Phase, Request
from worker.engine.answers import Answers
from worker.engine.architectures import build_fitted
from worker.engine.checkpoint import Keeper, Snapshot, environment, read_snapshot
from worker.engine.comparison import compare
from worker.engine.course import Course
from worker.engine.courses import Courses
from worker.engine.export import Evaluation, export_bundle
from worker.engine.loop import distill
from worker.engine.preflight import prepare, untrained
from worker.engine.prepared import Prepared
from worker.engine.profile import Journey
from worker.engine.rehearsal import rehearse
from worker.engine.requests import Requested, StopRequestedError
from worker.engine.softlabels import Desk, LabelFolder, Labelled, join, label_softly, num_chunks
from worker.engine.state import TrainingState
from worker.engine.teachers import Teacher, trained_teacher
from worker.engine.threads import num_threads_for, threads_for

CPU_ALLOCATION_FAILED = "can't allocate memory"


def run(
    spec: JobSpec,
    inputs: Mapping[str, Path],
    scratch: Path,
    *,
    checkpoint: Path | None,
    device: str,
    requested: Callable[[], Request | None],
    store: LabelStore | None = None,
) -> Iterator[TrainerEvent]:
    """Do the job, from the checkpoint if there is one, and tell what happens. Ends with Finished or Stopped.

    `inputs` holds the file of each artifact that the spec names; everything written goes below `scratch`, and soft
    labels are kept there too where no `store` is given. Raises a StillhouseError where the job cannot go on.
    """
    job = Job(spec, inputs, scratch, device=device, requested=requested, store=store)
    try:
        yield from job.train(checkpoint)
        yield from job.conclude()
    except StopRequestedError as stop:
        yield Stopped(request=stop.request)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemoryError from error
    except RuntimeError as error:
        if CPU_ALLOCATION_FAILED in str(error):
            raise OutOfMemoryError from error
        raise


class Job:
    """One job on its way. What an earlier attempt finished is taken from its checkpoint."""

    def __init__(
        self, spec: JobSpec, inputs: Mapping[str, Path], scratch: Path, *, device: str, requested: Requested,
        store: LabelStore | None = None,
    ) -> None:
        self.spec, self.inputs, self.scratch, self.device, self.requested = spec, inputs, scratch, device, requested
        self.store: LabelStore = store or LabelFolder(scratch / "soft_labels", inputs)
        self.answers: Answers | None = None
        self.journey = Journey({})
        self.keeper = Keeper(scratch, self.journey, seconds=spec.training.checkpoint_seconds, device=device)
        self.snapshot = Snapshot({}, {})
        self.prepared: Prepared
        self.courses: Courses
        self.teacher: Teacher

    def train(self, checkpoint: Path | None) -> Iterator[TrainerEvent]:
        """Everything up to the last step: preflight, teacher, soft labels, student and control."""
        yield from self._preflight(checkpoint)
        courses = self.courses
        if isinstance(self.spec.teacher, TrainTeacher):
            yield from self._train(courses.teacher())
        self.teacher = self.prepared.teacher or self.trained_teacher()
        yield from self._label(courses)
        yield from self._train(courses.student(self.teacher, self.keeper.soft_labels, self.answers))
        if self.spec.trains_control:
            yield from self._train(courses.control(self.keeper.soft_labels))

    def conclude(self) -> Iterator[TrainerEvent]:
        """Evaluate all, export the student and prove the export."""
        yield from self._stop_if_requested(Phase.EVALUATING)
        yield self.journey.enter(Phase.EVALUATING)
        comparison = compare(self.spec, self.prepared, self.teacher, self.keeper, self.device)
        yield self.journey.tell(0)
        yield from self._stop_if_requested(Phase.EXPORTING)
        yield self.journey.enter(Phase.EXPORTING)
        part = self.prepared.dataset.evaluated
        exported = export_bundle(
            scratch=self.scratch,
            student=comparison.student,
            architecture=self.prepared.student.architecture,
            preprocessing=self.prepared.dataset.preprocessing,
            label_names=self.prepared.label_names,
            evaluation=Evaluation(part.samples.raw[part.ids], part.labels),
            report=comparison.report(self.journey.seconds()),
            spec=self.spec,
            inputs=self.inputs,
        )
        yield Finished(report=exported.report, files=exported.files)

    def _preflight(self, checkpoint: Path | None) -> Iterator[TrainerEvent]:
        yield self.journey.enter(Phase.PREFLIGHT)
        self.prepared = prepare(self.spec, self.inputs, self.device)
        self.courses = Courses(self.spec, self.prepared, self.device)
        rehearsed = self.prepared.teacher or untrained(self.prepared, self.device)
        self.journey.expected = rehearse(self.spec, self.prepared, self.courses, rehearsed, self.device)
        yield from self.prepared.notes()
        if checkpoint is not None:
            yield self._resume(checkpoint)

    def _resume(self, checkpoint: Path) -> Noted:
        snapshot = read_snapshot(checkpoint)
        if snapshot is None:
            return Noted(
                level="warning", code="checkpoint_unusable",
                message="The checkpoint is damaged or of another version of the service; the job starts anew.",
            )
        self.snapshot = snapshot
        self.keeper.soft_labels |= {name: rows.to(self.device) for name, rows in snapshot.soft_labels.items()}
        self.journey.resume(snapshot.expected, snapshot.spent)
        here = environment(self.device)
        if here == snapshot.environment:
            return Noted(code="resumed", message="Resumed from a checkpoint, as if it had never stopped.")
        return Noted(
            level="warning", code="resumed_elsewhere",
            message="Resumed in another environment than the checkpoint's: the weights may differ in their last bits.",
            data={"before": snapshot.environment, "now": here},
        )

    def _train(self, course: Course) -> Iterator[TrainerEvent]:
        state = course.begin(self.device)
        if saved := self.snapshot.training(course.phase):
            state.restore(*saved)
        self.keeper.trainings[course.phase] = state
        if not state.ended:
            yield _tell_threads(course)
            with threads_for(course.step_flops):
                yield from distill(
                    course, state, requested=self.requested, keeper=self.keeper, journey=self.journey
                )

    def trained_teacher(self) -> Teacher:
        """The teacher that the job trained, at the step that validation selected."""
        state: TrainingState = self.keeper.trainings[Phase.TEACHER]
        architecture = self.prepared.teacher_architecture
        assert architecture is not None  # noqa: S101 - it was trained
        model = build_fitted(architecture, self.device)
        model.load_state_dict(state.selected)
        return trained_teacher(model, architecture, self.prepared.dataset)

    def _label(self, courses: Courses) -> Iterator[TrainerEvent]:
        """Have the teacher's answers about every split that it labels once."""
        expected = self.journey.expected.get(Phase.SOFT_LABELS, 0.0)
        desk = Desk(
            self.teacher, self.teacher.module if isinstance(self.spec.teacher, TrainTeacher) else None,
            courses.images, self.store, self.scratch, self.device, expected / num_chunks(courses.labelled()),
            self.requested, self.keeper, self.journey,
        )
        found = yield from label_softly([split for split in courses.labelled() if self._lacks(split)], self.spec, desk)
        for name, views in found.items():
            if name == self.prepared.dataset.train.name:
                self.answers = courses.stored(views)
            else:
                self.keeper.soft_labels[name] = join(views[0]).widen().to(self.device)

    def _lacks(self, split: Labelled) -> bool:
        """Whether the split's soft labels are still needed; a training that has ended needs none."""
        if split.part is not self.prepared.dataset.train:
            return split.part.name not in self.keeper.soft_labels
        facts, _ = self.snapshot.training(Phase.DISTILLING) or ({}, {})
        return not facts.get("ended", False)

    def _stop_if_requested(self, phase: Phase) -> Iterator[TrainerEvent]:
        if request := self.requested():
            yield self.keeper.save(phase, 0)
            raise StopRequestedError(request)


def _tell_threads(course: Course) -> Noted:
    threads = num_threads_for(course.step_flops)
    return Noted(
        code="threads", message=f"This training uses {threads} of {torch.get_num_threads()} threads.",
        data={"phase": course.phase.value, "threads": threads},
    )
