"""A course of training: what stays the same from its first step to its last."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from stillhouse.contract.events import Measured
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.spec import Architecture, Training
from stillhouse.contract.status import Phase
from worker.engine.architectures import build_fitted
from worker.engine.data import Batches
from worker.engine.feed import Batch, Chunks, Feed
from worker.engine.numerics import Numerics
from worker.engine.objectives import Loss, Views
from worker.engine.objectives.views import wide
from worker.engine.optim import Average, build_optimizer, build_schedule
from worker.engine.ranks import ALONE, Ranks
from worker.engine.seeds import derive_seed
from worker.engine.state import Tensors, TrainingState
from worker.engine.tasks import Answered, Task

NUM_MEASUREMENTS = 100  # per training, where its steps are not too many for that
MAX_LOG_STEPS = 100


@dataclass(frozen=True)
class Learner:
    """What is trained: a complete architecture, and the weights it starts from, where not from random ones."""

    architecture: Architecture
    weights: Tensors | None = None


@dataclass(frozen=True)
class Validation:
    """What selects the best step."""

    inputs: Chunks  # of V samples
    teacher: Tensor | None  # outputs (V, C), or (V, M, C) of an ensemble
    labels: Tensor | None  # (V,), or (V, C)
    mask: Tensor | None = None  # (V,) bool


@dataclass(frozen=True)
class Course:
    """One model, its objective, its samples and its schedule."""

    phase: Phase
    learner: Learner
    training: Training
    batches: Batches
    feed: Feed
    loss: Loss
    validation: Validation
    task: Task
    metric: str | None  # None: there is nothing to evaluate by, and the last step is the one
    seed: int
    step_flops: int
    numerics: Numerics
    expect: Callable[[Tensor], None] | None = None  # told which samples the next step needs, where they lie on disk
    num_views: int | None = None  # None: every epoch shows a view of its own
    teacher_shares: Tensor | None = None
    ranks: Ranks = ALONE

    @cached_property
    def total_steps(self) -> int:
        """Steps to the last epoch's end."""
        return self.training.epochs * self.batches.steps_per_epoch

    @cached_property
    def log_steps(self) -> int:
        """Steps between two measurements."""
        return max(1, min(MAX_LOG_STEPS, self.total_steps // NUM_MEASUREMENTS))

    @cached_property
    def learning_rate(self) -> Callable[[int], float]:
        """Step size by step."""
        return build_schedule(self.training, self.total_steps)

    def begin(self, device: str) -> TrainingState:
        """The state before the first step; draws the first weights and seeds dropout."""
        torch.manual_seed(derive_seed(self.seed, "weights"))
        model = self.numerics.place(build_fitted(self.learner.architecture, device))
        if self.learner.weights is not None:
            model.load_state_dict(dict(self.learner.weights))
        torch.manual_seed(derive_seed(self.seed, "dropout", *([self.ranks.rank] if self.ranks.rank else [])))
        average = Average(model, self.training.ema_decay) if self.training.ema_decay else None
        parameters = [*model.parameters(), *self.loss.parameters()]
        optimizer = build_optimizer(self.training.optimizer, parameters)
        return TrainingState(model, optimizer, self.loss, average, self.ranks)

    def batch(self, step: int) -> Batch:
        """What the step sees."""
        epoch = self.batches.epoch(step)
        batch = self.feed(self.ranks.share(self.batches(step)), epoch % self.num_views if self.num_views else epoch)
        if self.expect is not None and step + 1 < self.total_steps:
            self.expect(self.ranks.share(self.batches(step + 1)))
        return batch

    def look(self, state: TrainingState, batch: Batch) -> Views:
        """The batch as the objective sees it: the student has answered."""
        with self.numerics.forward():
            outputs = state.answer(self.numerics.inputs(batch.inputs))
        taught = {path: self.numerics.inputs(feature) for path, feature in batch.teacher_features.items()}
        return Views(
            outputs, batch.teacher, batch.labels, batch.mask, batch.ids, state.tap.take(), taught, self.teacher_shares,
        )

    def progress(self, step: int) -> float:
        """Share of the training that is done before the step, 0 to 1; 1 at the last step."""
        return step / max(self.total_steps - 1, 1)

    @property
    def is_partly_labelled(self) -> bool:
        """Whether some samples of the training split have no label."""
        return self.batch(0).mask is not None

    def is_over(self, state: TrainingState) -> bool:
        """Whether no step follows."""
        return state.stopped_early or state.step >= self.total_steps

    def ends_at_once(self, state: TrainingState) -> bool:
        """Whether something comes of ending here: of a student some steps old; a control is only left out."""
        return self.phase is Phase.CONTROL or (self.phase is Phase.DISTILLING and state.step > 0)

    def last_evaluation_is_due(self, state: TrainingState) -> bool:
        """Whether a student that ends here may be better than the best so far."""
        return self.phase is Phase.DISTILLING and state.evaluated_step != state.step

    def evaluation_is_due(self, state: TrainingState) -> bool:
        """At the end of every so many epochs and at the very end; never twice at one step."""
        if state.evaluated_step == state.step:
            return False
        every = self.training.evaluate_every * self.batches.steps_per_epoch
        return state.step % every == 0 or state.step == self.total_steps

    def measurement_is_due(self, step: int) -> bool:
        """Every so many steps, and after the last."""
        return step % self.log_steps == 0 or step == self.total_steps

    def measure(self, state: TrainingState) -> Measured:
        """Each term's mean since the last measurement. The one place where the loop waits for the device."""
        self.check_finite(state)
        rows = torch.stack(state.losses).view(-1, len(self.loss.names)).double().mean(dim=0)
        means = torch.stack([*self.ranks.gather(rows.cpu())]).mean(dim=0)
        values = dict(zip(self.loss.names, means.tolist(), strict=True))
        if state.shares is not None:
            values |= dict(zip(self.loss.share_names, state.shares.tolist(), strict=True))
        values["learning_rate"] = self.learning_rate(state.step - 1)
        state.losses.clear()
        state.note(state.step, values)
        return Measured(phase=self.phase, step=state.step, values=values)

    def evaluate(self, state: TrainingState) -> Measured:
        """Score the model on the validation split, select its weights, and decide whether to stop."""
        self.check_finite(state)
        state.evaluated_step = state.step
        values = self._scores(state)
        if self.metric is None:
            state.keep()
        else:
            name = f"validation.{self.metric}"
            score = -values[name] if self.metric == "loss" else values[name]
            state.select(score, values.get("validation.loss"))
            if stopping := self.training.early_stopping:
                state.count_gain(score, min_gain=stopping.min_gain, patience=stopping.patience)
        state.note(state.step, values)
        return Measured(phase=self.phase, step=state.step, values=values)

    def check_finite(self, state: TrainingState) -> None:
        """Raise DivergedError with the first step whose loss was not finite, of those not measured yet."""
        if not state.losses:
            return
        broken = ~torch.stack(state.losses).view(-1, len(self.loss.names))[:, 0].isfinite()
        if bool(broken.any()):
            first = int(broken.nonzero()[0])
            raise DivergedError(step=state.step - len(broken) + 1 + first)

    def _scores(self, state: TrainingState) -> Mapping[str, float]:
        validation = self.validation
        outputs = predict(state.evaluated_model, validation.inputs, self.numerics)
        if not bool(outputs.isfinite().all()):
            raise DivergedError(step=state.step)
        teacher, labels, mask = validation.teacher, validation.labels, validation.mask
        answered = Answered(outputs, labels, mask, teacher, self.teacher_shares)
        values = {f"validation.{name}": value for name, value in self.task.validate(answered).items()}
        if self.loss.is_computable(has_labels=labels is not None, has_teacher=teacher is not None):
            views = Views(outputs, teacher, labels, mask, teacher_weights=self.teacher_shares)
            values["validation.loss"] = float(self.loss(views, 1.0)[0])
        return values


@torch.no_grad()
def predict(model: nn.Module, inputs: Chunks, numerics: Numerics) -> Tensor:
    """Outputs (N, C), at least float32, in evaluation mode; the mode is left as it was."""
    was_training = model.training
    model.eval()
    with numerics.forward():
        outputs = torch.cat([model(numerics.inputs(chunk)) for chunk in inputs()])
    model.train(was_training)
    return wide(outputs)
