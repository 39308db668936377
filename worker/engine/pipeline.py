"""The engine's one entry: preflight, teacher, soft labels, student, control, evaluation, export."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from stillhouse.contract.events import Finished, Noted, Planned, Stopped, TrainerEvent
from stillhouse.contract.failures import OutOfDeviceMemoryError, OutOfMemoryError
from stillhouse.contract.lending import LabelStore
from stillhouse.contract.recipes import applied, told_where_sent
from stillhouse.contract.report import Interruption
from stillhouse.contract.spec import DerivedStudent, JobSpec, TrainTeacher
from stillhouse.contract.status import Phase, Request
from worker.engine.answers import Answers
from worker.engine.architectures import build_fitted
from worker.engine.checkpoint import Keeper, Snapshot, environment, read_snapshot
from worker.engine.comparison import compare
from worker.engine.course import Course
from worker.engine.courses import Courses
from worker.engine.export import Evaluation, export_bundle
from worker.engine.launch import launch
from worker.engine.loop import distill
from worker.engine.numerics import Numerics
from worker.engine.plan import make_plan, tell_ranks
from worker.engine.preflight import prepare, untrained
from worker.engine.prepared import Prepared
from worker.engine.profile import Journey
from worker.engine.ranks import ALONE, Ranks
from worker.engine.rehearsal import choose_numerics, rehearse
from worker.engine.requests import Requested, StopRequestedError
from worker.engine.softlabels import Desk, LabelFolder, Labelled, join, label_softly, num_chunks
from worker.engine.state import TrainingState
from worker.engine.students import begin_student
from worker.engine.teachers import NetworkTeacher, Teacher, folded, trained_teacher
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

    On several devices, named with commas between them, as many processes train together.
    `inputs` holds the file of each artifact that the spec names; everything written goes below `scratch`, and soft
    labels are kept there too where no `store` is given. Raises a StillhouseError where the job cannot go on.
    """
    if "," in device:
        yield from launch(spec, inputs, scratch, checkpoint=checkpoint, device=device, requested=requested)
        return
    yield from run_alone(Job(spec, inputs, scratch, device=device, requested=requested, store=store), checkpoint)


def run_alone(job: "Job", checkpoint: Path | None) -> Iterator[TrainerEvent]:
    """Do the job in this process, alone or beside others like it."""
    yield from _to_its_end(job.spec, job.run(checkpoint))


def plan(
    spec: JobSpec,
    inputs: Mapping[str, Path],
    scratch: Path,
    *,
    device: str,
    requested: Callable[[], Request | None],
) -> Iterator[TrainerEvent]:
    """Run the job's preflight alone, and tell what the job would do. Ends with Planned or Stopped.

    Raises the StillhouseError that would have failed the job.
    """
    yield from _to_its_end(spec, Job(spec, inputs, scratch, device=device, requested=requested).plan())


def _to_its_end(spec: JobSpec, events: Iterable[TrainerEvent]) -> Iterator[TrainerEvent]:
    """The events, with a last word also where the engine was stopped; a want of memory gets its name."""
    try:
        with told_where_sent(spec):
            yield from events
    except StopRequestedError as stop:
        yield Stopped(request=stop.request)
    except MemoryError as error:
        raise OutOfMemoryError from error
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemoryError from error
    except RuntimeError as error:
        if CPU_ALLOCATION_FAILED in str(error):
            raise OutOfMemoryError from error
        raise


class Job:
    """One job on its way. What an earlier attempt finished is taken from its checkpoint."""

    def __init__(
        self, spec: JobSpec, inputs: Mapping[str, Path], scratch: Path, *, device: str, requested: Requested,
        ranks: Ranks = ALONE, store: LabelStore | None = None,
    ) -> None:
        self.ranks = ranks
        self.spec, self.inputs, self.scratch, self.device, self.requested = spec, inputs, scratch, device, requested
        self.store: LabelStore = store or LabelFolder(scratch / "soft_labels", inputs)
        self.answers: Answers | None = None
        self.journey = Journey({})
        seconds = spec.effective_training.checkpoint_seconds
        self.keeper = Keeper(scratch, self.journey, seconds=seconds, device=device, ranks=ranks)
        self.snapshot = Snapshot({}, {})
        self.prepared: Prepared
        self.courses: Courses
        self.teacher: Teacher
        self.interrupted: Interruption | None = None
        self.tried: Mapping[Numerics, float] = {}  # seconds of a step, by the ways to compute that were measured

    def run(self, checkpoint: Path | None) -> Iterator[TrainerEvent]:
        """The whole job. Of several processes one concludes."""
        yield from self.train(checkpoint)
        if self.ranks.is_first:
            yield from self.conclude()

    def train(self, checkpoint: Path | None) -> Iterator[TrainerEvent]:
        """Everything up to the last step: preflight, teacher, soft labels, student and control."""
        yield from self._preflight(checkpoint, self.ranks.size)
        courses = self.courses
        if isinstance(self.spec.teacher, TrainTeacher):
            yield from self._train(courses.teacher())
        self.teacher = self.prepared.teacher or self.trained_teacher()
        if self.prepared.teacher is None and isinstance(self.spec.student, DerivedStudent):
            self._derive_student()
        yield from self._label(courses)
        student = courses.student(self.teacher, self.keeper.soft_labels, self.answers)
        yield from self._train(student)
        is_cut = self._is_cut(student)
        if self.spec.trains_control and not is_cut:
            control = courses.control(self.keeper.soft_labels)
            yield from self._train(control)
            if self._is_cut(control):  # it would make the student look better than it is
                del self.keeper.trainings[Phase.CONTROL]
        without_control = self.spec.trains_control and Phase.CONTROL not in self.keeper.trainings
        if is_cut or without_control:
            self.interrupted = Interruption(
                step=self.keeper.trainings[Phase.DISTILLING].step, total_steps=student.total_steps,
                without_control=without_control,
            )

    def plan(self) -> Iterator[TrainerEvent]:
        """Preflight, and what it found."""
        yield from self._preflight(None, self.spec.devices)  # as this one process can tell of all of them
        if request := self.requested():  # nothing is worth a checkpoint
            raise StopRequestedError(request)
        teacher, expected = self._rehearsing_teacher(), self.journey.expected
        yield Planned(plan=make_plan(self.spec, self.prepared, self.courses, teacher, self.tried, expected))

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
            evaluation=Evaluation(part.samples.raw, part.labels, part.mask, part.ids),
            report=comparison.report(self.journey.seconds(), self.interrupted),
            spec=self.spec,
            inputs=self.inputs,
        )
        yield Finished(report=exported.report, files=exported.files)

    def _preflight(self, checkpoint: Path | None, num_ranks: int) -> Iterator[TrainerEvent]:
        yield self.journey.enter(Phase.PREFLIGHT)
        self.prepared = prepare(self.spec, self.inputs, self.device, scratch=self.scratch, num_ranks=num_ranks)
        self.courses = Courses(self.spec, self.prepared, self.device, self.ranks)
        rehearsed = self._rehearsing_teacher()
        yield _tell_recipe(self.spec)
        yield from self.prepared.notes()
        resumed = self._resume(checkpoint) if checkpoint is not None else None
        yield from self._choose_numerics(rehearsed)
        if num_ranks > 1:
            yield tell_ranks(self.courses.student(rehearsed, {}, rehearsed=True), num_ranks)
        self.journey.expected = rehearse(self.spec, self.prepared, self.courses, rehearsed, self.device)
        if self.snapshot.facts:
            self.journey.resume(self.snapshot.expected, self.snapshot.spent)
        if resumed is not None:
            yield resumed

    def _rehearsing_teacher(self) -> Teacher:
        return self.prepared.teacher or untrained(self.prepared, self.device)

    def _choose_numerics(self, teacher: Teacher) -> Iterator[TrainerEvent]:
        if self.snapshot.numerics is not None:
            self.courses.numerics = replace(self.courses.numerics, **self.snapshot.numerics)
        else:
            chosen, self.tried = choose_numerics(self.spec, self.courses, teacher, self.device)
            self.courses.numerics = replace(self.ranks.agree(chosen), device=self.device)
            if self.tried:
                yield _tell_numerics(self.courses.numerics, self.tried)
        self.keeper.numerics = self.courses.numerics.facts()

    def _resume(self, checkpoint: Path) -> Noted:
        snapshot = read_snapshot(checkpoint)
        if snapshot is None:
            return Noted(
                level="warning", code="checkpoint_unusable",
                message="The checkpoint is damaged or of another version of the service; the job starts anew.",
            )
        self.snapshot = snapshot
        self.keeper.soft_labels |= {name: rows.to(self.device) for name, rows in snapshot.soft_labels.items()}
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

    def _is_cut(self, course: Course) -> bool:
        """Whether a training that has ended was asked to before it was over."""
        return not course.is_over(self.keeper.trainings[course.phase])

    def trained_teacher(self) -> NetworkTeacher:
        """The teacher that the job trained, at the step that validation selected."""
        state: TrainingState = self.keeper.trainings[Phase.TEACHER]
        architecture = self.prepared.teacher_architecture
        assert architecture is not None  # noqa: S101 - it was trained
        model = build_fitted(architecture, self.device)
        model.load_state_dict(state.selected)
        return trained_teacher(model, architecture, self.prepared.dataset)

    def _derive_student(self) -> None:
        """The student of a teacher that has just learned: its weights are known only now."""
        self.courses.learner, _ = begin_student(
            self.spec, self.inputs, self.prepared.dataset, self.prepared.student.architecture, self.teacher.module,
            self.teacher.architecture,
        )

    def _label(self, courses: Courses) -> Iterator[TrainerEvent]:
        """Have the teacher's answers about every split that it labels once."""
        labelled = courses.labelled()
        expected = self.journey.expected.get(Phase.SOFT_LABELS, 0.0)
        desk = Desk(
            folded(self.teacher), self.teacher.module if isinstance(self.spec.teacher, TrainTeacher) else None,
            courses.shown, self.store, self.scratch, self.device, expected / max(1, num_chunks(labelled)),
            # Each process has its own share here, and the first one's end is the end of all.
            self._asked_to_stop if self.ranks.is_first else lambda: None, self.keeper, self.journey,
        )
        found = yield from label_softly([split for split in labelled if self._lacks(split)], self.spec, desk)
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

    @property
    def _has_student(self) -> bool:
        """Whether an earlier attempt left a student to finish with."""
        facts, _ = self.snapshot.training(Phase.DISTILLING) or ({}, {})
        return bool(facts.get("step", 0) > 0)

    def _asked_to_stop(self) -> Request | None:
        """What is asked, if it is to end here: also to finish, where there is nothing to finish with."""
        request = self.requested()
        return None if request is Request.FINISH and self._has_student else request

    def _stop_if_requested(self, phase: Phase) -> Iterator[TrainerEvent]:
        request = self.requested()
        if request and request is not Request.FINISH:  # by the first rank alone: the others have ended
            yield self.keeper.save(phase, 0)
            raise StopRequestedError(request)


def _tell_recipe(spec: JobSpec) -> Noted:
    recipe = applied(spec)
    own = f"; the spec gives {', '.join(recipe.overrides)} itself" if recipe.overrides else ""
    return Noted(code="recipe", message=f"Recipe {recipe.name}{own}.", data=recipe.model_dump(mode="json"))


def _tell_numerics(numerics: Numerics, tried: Mapping[Numerics, float]) -> Noted:
    seconds = {f"{way.precision}, {way.memory_format}": took for way, took in tried.items()}
    listed = ", ".join(f"{what}: {1000 * took:.1f} ms" for what, took in seconds.items())
    return Noted(
        code="numerics",
        message=f"The student computes in {numerics.precision}, images in memory {numerics.memory_format}; a step took "
        f"{listed}.",
        data={**numerics.facts(), "seconds_per_step": seconds},
    )


def _tell_threads(course: Course) -> Noted:
    threads = num_threads_for(course.step_flops)
    return Noted(
        code="threads", message=f"This training uses {threads} of {torch.get_num_threads()} threads.",
        data={"phase": course.phase.value, "threads": threads},
    )
