"""The training loop, the same for student, control and teacher: only the course differs."""

from collections.abc import Iterator

from torch.nn.utils import clip_grad_norm_

from stillhouse.contract.events import TrainerEvent
from stillhouse.contract.status import Request
from worker.engine.checkpoint import Keeper
from worker.engine.course import Course
from worker.engine.profile import Journey
from worker.engine.requests import Requested, StopRequestedError
from worker.engine.state import TrainingState


def distill(
    course: Course, state: TrainingState, *, requested: Requested, keeper: Keeper, journey: Journey
) -> Iterator[TrainerEvent]:
    """Train to the last step or an early stop; no further when asked to finish with what there is.

    Raises StopRequestedError when asked to stop, after a checkpoint.
    """
    yield journey.enter(course.phase, course.total_steps, done=state.step)
    state.model.train()
    while True:
        if course.evaluation_is_due(state):
            yield course.evaluate(state)
        if course.is_over(state):
            break
        request, is_due = course.ranks.decide(state.step, requested, keeper.is_due)
        if request is Request.FINISH and course.ends_at_once(state):
            if course.last_evaluation_is_due(state):
                yield course.evaluate(state)
            state.ended = True
            yield journey.tell(state.step)
            return
        if request or is_due:
            course.check_finite(state)
            yield keeper.save(course.phase, state.step)
        if request:
            raise StopRequestedError(request)
        step(course, state)
        if course.measurement_is_due(state.step):
            yield course.measure(state)
        if journey.is_due():
            yield journey.tell(state.step, state.step * course.batches.batch_size)
    state.ended = True
    yield journey.tell(course.total_steps)


def step(course: Course, state: TrainingState) -> None:
    """One batch forward and back, and the weights after it. Never waits for the device."""
    views, progress = course.look(state, course.batch(state.step)), course.progress(state.step)
    losses = state.judge(views, progress)
    if course.measurement_is_due(state.step + 1) and len(losses) > 2:  # noqa: PLR2004 - one term is all of it
        state.shares = course.loss.gradient_shares(losses, views, progress)
    for parameter in state.parameters:
        parameter.grad = None
    losses[0].backward()
    if course.training.gradient_clip_norm is not None:
        clip_grad_norm_(state.parameters, course.training.gradient_clip_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = course.learning_rate(state.step)
    state.optimizer.step()
    state.step += 1
    state.losses += [loss.detach() for loss in losses]
    if state.average:
        state.average.update(state.step)
