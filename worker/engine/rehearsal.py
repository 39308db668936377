"""One batch through teacher, student, every term and backward, before anything is trained; and what it took."""

import time
from dataclasses import replace
from typing import Final

from torch import Tensor

from stillhouse.contract.failures import DivergedError
from stillhouse.contract.spec import JobSpec, TrainTeacher
from stillhouse.contract.status import Phase
from worker.engine.course import Course
from worker.engine.courses import Courses
from worker.engine.loop import step
from worker.engine.numerics import Numerics, has_fast_bfloat16
from worker.engine.prepared import Prepared
from worker.engine.softlabels import CHUNK, num_chunks
from worker.engine.teachers import Teacher, folded
from worker.engine.threads import SMALL_STEP_FLOPS, threads_for

# Rough, and the same on every machine's scale: evaluation, and export with its proof in a fresh process.
EVALUATING_SECONDS = 1.0
EXPORTING_SECONDS = 6.0
# How many times as fast another way to compute must be to be taken.
WORTH_IT: Final = 1.2


def rehearse(spec: JobSpec, prepared: Prepared, courses: Courses, teacher: Teacher, device: str) -> dict[Phase, float]:
    """What each phase should take, in seconds. Raises what the job would raise at its first step."""
    course = courses.student(teacher, {}, rehearsed=True)
    label_seconds = _time_labels(prepared, folded(teacher), course.batches(0).cpu(), device)
    step_seconds = time_step(course, device)
    expected = {
        Phase.SOFT_LABELS: num_chunks(courses.labelled()) * label_seconds * CHUNK / course.batches.batch_size,
        Phase.DISTILLING: course.total_steps * step_seconds,
        Phase.CONTROL: 0.0,
        Phase.EVALUATING: EVALUATING_SECONDS,
        Phase.EXPORTING: EXPORTING_SECONDS,
    }
    if spec.trains_control:
        control = courses.control({})
        expected[Phase.CONTROL] = control.total_steps * time_step(control, device)
    if isinstance(spec.teacher, TrainTeacher):
        of_teacher = courses.teacher()
        expected[Phase.TEACHER] = of_teacher.total_steps * time_step(of_teacher, device)
    return expected


def _time_labels(prepared: Prepared, teacher: Teacher, ids: Tensor, device: str) -> float:
    samples = prepared.dataset.train.samples
    arranged, given = samples.arranged.index_select(0, ids).to(device), samples.said_softly(ids, teacher.num_outputs)
    teacher.answer(arranged, given)  # the first pass allocates and chooses kernels
    began = time.perf_counter()
    teacher.answer(arranged, given)
    return time.perf_counter() - began


def choose_numerics(
    spec: JobSpec, courses: Courses, teacher: Teacher, device: str
) -> tuple[Numerics, dict[Numerics, float]]:
    """How the student is to compute, and the seconds of a step by each way that was measured.

    Small steps are not measured: a stopwatch must not decide their bits, and there is little to gain.
    """
    usual = courses.numerics
    if spec.effective_training.precision != "auto":
        return usual, {}
    course = courses.student(teacher, {}, rehearsed=True)
    if course.step_flops < SMALL_STEP_FLOPS:
        return usual, {}
    tried = [usual, replace(usual, memory_format="contiguous")]
    if has_fast_bfloat16(device):
        tried.append(replace(usual, precision="bfloat16"))
    seconds = {numerics: time_step(replace(course, numerics=numerics), device) for numerics in tried}
    best = min(tried, key=seconds.__getitem__)
    chosen = best if seconds[usual] >= WORTH_IT * seconds[best] else usual
    return chosen, seconds


def time_step(course: Course, device: str) -> float:
    """Seconds of the second of two steps of a model that is thrown away. Raises DivergedError for a loss like NaN."""
    state = course.begin(device)
    state.model.train()
    began = 0.0
    with threads_for(course.step_flops):
        for _ in range(2):
            state.step, began = 0, time.perf_counter()
            step(course, state)
    if not bool(state.losses[0].isfinite()):
        raise DivergedError("the very first loss is not finite: the inputs or the soft labels are too large", step=0)
    return time.perf_counter() - began
