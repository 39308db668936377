"""Everything about one training that a checkpoint must hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.features import Tap
from worker.engine.objectives import Loss
from worker.engine.optim import Average, optimizer_tensors, restore_optimizer
from worker.engine.ranks import ALONE, Ranks

# Facts are plain JSON values.
Facts = dict[str, Any]
Tensors = dict[str, Tensor]

_FACTS = (
    "step", "evaluated_step", "selected_step", "selected_score", "selected_loss", "gain_score",
    "evaluations_without_gain", "stopped_early", "ended", "curves",
)


@dataclass
class TrainingState:
    """What changes while a model is trained. Scores are better when higher."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss  # some of its terms may learn beside the model
    average: Average | None = None
    ranks: Ranks = ALONE
    step: int = 0
    evaluated_step: int = 0
    selected: Tensors = field(default_factory=dict)  # weights and buffers of the best evaluation
    selected_step: int | None = None
    selected_score: float | None = None
    selected_loss: float | None = None
    gain_score: float | None = None  # what early stopping compares with
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    ended: bool = False
    losses: list[Tensor] = field(default_factory=list)  # since the last measurement, flat: one row of terms per step
    shares: Tensor | None = None  # of the terms in the gradient, at the last step that was measured
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parameters = [*self.model.parameters(), *self.loss.parameters()]
        self.tap = Tap(self.model, self.loss.student_layers)
        self.answer = self.ranks.together(self.model, reaches_all=not self.loss.student_layers)
        self.judge = self.ranks.together(self.loss)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and exported: the average, where one is kept."""
        return self.average.model if self.average else self.model

    def dump(self) -> tuple[Facts, Tensors]:
        """The state as plain values and tensors. What only training needs is left out when training has ended."""
        facts = {name: getattr(self, name) for name in _FACTS}
        tensors = _prefixed("model", self.model.state_dict()) | _prefixed("selected", self.selected)
        if self.average:
            tensors |= _prefixed("average", self.average.model.state_dict())
        if not self.ended:
            tensors |= _prefixed("optimizer", optimizer_tensors(self.optimizer))
            tensors |= _prefixed("loss", self.loss.state_dict())
            for rank, own in enumerate(self.ranks.gather(self._own())):
                tensors |= _prefixed(f"rank.{rank}", own)
        return facts, tensors

    def restore(self, facts: Facts, tensors: Tensors) -> None:
        """The inverse of `dump`, on a state built from the same spec. Sets the generators as well."""
        for name in _FACTS:
            setattr(self, name, facts[name])
        self.model.load_state_dict(_under("model", tensors))
        self.selected = _under("selected", tensors)
        if self.average:
            self.average.model.load_state_dict(_under("average", tensors))
        if not self.ended:
            device = next(self.model.parameters()).device
            restore_optimizer(self.optimizer, _under("optimizer", tensors))
            self.loss.load_state_dict(_under("loss", tensors))
            own = _under(f"rank.{self.ranks.rank}", tensors)
            restore_generators(_under("generator", own))
            self.losses = list(own["losses"].to(device)) if "losses" in own else []

    def _own(self) -> Tensors:
        """What differs between processes that train together."""
        losses = {"losses": torch.stack(self.losses).cpu()} if self.losses else {}
        return _prefixed("generator", generator_states()) | losses

    def select(self, score: float, loss: float | None) -> None:
        """Keep the weights if they are the best so far; at equal scores the lower loss wins."""
        if self.selected_score is None or (score, -(loss or 0)) > (self.selected_score, -(self.selected_loss or 0)):
            self.keep()
            self.selected_score, self.selected_loss = score, loss

    def keep(self) -> None:
        """Select the weights of this step."""
        self.selected = {name: tensor.detach().clone() for name, tensor in self.evaluated_model.state_dict().items()}
        self.selected_step = self.step

    def count_gain(self, score: float, *, min_gain: float, patience: int) -> None:
        """Stop early after `patience` evaluations in a row without a gain above `min_gain`."""
        if self.gain_score is None or score > self.gain_score + min_gain:
            self.gain_score, self.evaluations_without_gain = score, 0
        else:
            self.evaluations_without_gain += 1
        self.stopped_early = self.evaluations_without_gain >= patience

    def last_scores(self) -> dict[str, float]:
        """What the last evaluation said; empty before the first."""
        of_validation = {name: points[-1] for name, points in self.curves.items() if name.startswith("validation.")}
        return {name: value for name, (step, value) in of_validation.items() if step == self.evaluated_step}

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the report's curves."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))


def generator_states() -> Tensors:
    """States of torch's default generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(states: Mapping[str, Tensor]) -> None:
    """The inverse of `generator_states`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }
