"""A course of training: what stays the same from its first step to its last."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from stillhouse.contract.events import Measured
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.spec import Architecture, Training
from stillhouse.contract.status import Phase
from worker.engine.architectures import build_fitted
from worker.engine.data import Batches
from worker.engine.feed import CHUNK, Feed
from worker.engine.objectives import Loss, Views
from worker.engine.optim import Average, build_optimizer, build_schedule
from worker.engine.seeds import derive_seed
from worker.engine.state import TrainingState

NUM_MEASUREMENTS = 100  # per training, where its steps are not too many for that
MAX_LOG_STEPS = 100

Metric = Literal["accuracy", "agreement", "loss"]


@dataclass(frozen=True)
class Validation:
    """What selects the best step."""

    inputs: Tensor  # normalised (V, *input_shape)
    teacher: Tensor | None  # logits (V, num_classes)
    labels: Tensor | None  # (V,)


@dataclass(frozen=True)
class Course:
    """One model, its objective, its samples and its schedule."""

    phase: Phase
    architecture: Architecture  # complete
    training: Training
    batches: Batches
    feed: Feed
    loss: Loss
    validation: Validation
    metric: Metric | None  # None: there is nothing to evaluate by, and the last step is the one
    seed: int
    step_flops: int

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
        model = build_fitted(self.architecture, device)
        torch.manual_seed(derive_seed(self.seed, "dropout"))
        average = Average(model, self.training.ema_decay) if self.training.ema_decay else None
        return TrainingState(model, build_optimizer(self.training.optimizer, model.parameters()), average)

    def is_over(self, state: TrainingState) -> bool:
        """Whether no step follows."""
        return state.stopped_early or state.step >= self.total_steps

    def evaluation_is_due(self, state: TrainingState) -> bool:
        """At the end of every so many epochs and at the very end; never twice at one step."""
        if state.evaluated_step == state.step:
            return False
        every = self.training.evaluate_every * self.batches.steps_per_epoch
        return state.step % every == 0 or state.step == self.total_steps

    def measurement_is_due(self, state: TrainingState) -> bool:
        """Every so many steps, and after the last."""
        return state.step % self.log_steps == 0 or state.step == self.total_steps

    def measure(self, state: TrainingState) -> Measured:
        """Each term's mean since the last measurement. The one place where the loop waits for the device."""
        self.check_finite(state)
        rows = torch.stack(state.losses).view(-1, len(self.loss.names))
        values = dict(zip(self.loss.names, rows.double().mean(dim=0).tolist(), strict=True))
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

    def _scores(self, state: TrainingState) -> dict[str, float]:
        logits = predict(state.evaluated_model, self.validation.inputs)
        if not bool(logits.isfinite().all()):
            raise DivergedError(step=state.step)
        teacher, labels = self.validation.teacher, self.validation.labels
        values: dict[str, float] = {}
        if labels is not None:
            values["validation.accuracy"] = _share(logits.argmax(1) == labels)
        if teacher is not None:
            values["validation.agreement"] = _share(logits.argmax(1) == teacher.argmax(1))
        if (labels is not None or not self.loss.needs_labels) and (teacher is not None or not self.loss.needs_teacher):
            values["validation.loss"] = float(self.loss(Views(logits, teacher, labels))[0])
        return values


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (N, num_classes) in evaluation mode, a chunk at a time; the mode is left as it was."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(chunk) for chunk in inputs.split(CHUNK)])
    model.train(was_training)
    return logits


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
