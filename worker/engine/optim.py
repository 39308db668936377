"""How weights follow gradients: optimisers, step sizes over time, and the moving average."""

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stillhouse.contract.spec import AdamW, Cosine, OneCycle, Optimizer, Schedule, Sgd, Step, Training

# Smith's one-cycle, with the shares that PyTorch chose: where it starts below the peak, and where it ends.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START * 1e-4


def build_optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of the spec; fused, since a loop over small tensors in Python costs as much as the step."""
    if isinstance(spec, Sgd):
        return torch.optim.SGD(
            parameters, lr=spec.learning_rate, momentum=spec.momentum, nesterov=spec.nesterov,
            weight_decay=spec.weight_decay, fused=True,
        )
    family = torch.optim.AdamW if isinstance(spec, AdamW) else torch.optim.Adam
    return family(
        parameters, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), eps=spec.epsilon,
        weight_decay=spec.weight_decay, fused=True,
    )


def build_schedule(training: Training, total_steps: int) -> Callable[[int], float]:
    """The step size as a pure function of the step, from 0; a schedule has no state to save."""
    peak, shape = training.optimizer.learning_rate, _shape(training.schedule, total_steps)
    warmup_steps = round(training.warmup_fraction * total_steps)

    def learning_rate(step: int) -> float:
        rate = peak * shape(step)
        return rate * (step + 1) / warmup_steps if step < warmup_steps else rate

    return learning_rate


def _shape(schedule: Schedule, total_steps: int) -> Callable[[int], float]:
    """Share of the peak at each step."""
    if isinstance(schedule, Cosine):
        final = schedule.final_fraction
        return lambda step: _between(1.0, final, step / total_steps)
    if isinstance(schedule, OneCycle):
        return _one_cycle(schedule.rise_fraction, total_steps)
    if isinstance(schedule, Step):
        starts = [milestone * total_steps for milestone in schedule.milestones]
        return lambda step: schedule.factor ** bisect_right(starts, step)
    return lambda _: 1.0


def _one_cycle(rise_fraction: float, total_steps: int) -> Callable[[int], float]:
    top = max(rise_fraction * total_steps - 1, 0.0)
    fall = max(total_steps - 1 - top, 1e-9)

    def shape(step: int) -> float:
        if step <= top:
            return _between(ONE_CYCLE_START, 1.0, step / top if top else 1.0)
        return _between(1.0, ONE_CYCLE_END, (step - top) / fall)

    return shape


def _between(start: float, end: float, share: float) -> float:
    """Along a half cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class Average:
    """An exponential moving average of a model's weights and buffers, as a model in evaluation mode.

    At step t the decay is at most (1 + t) / (10 + t), so that a short training does not end near its first weights.
    Whole-numbered buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        self._averaged = [average for average, _ in pairs if average.is_floating_point()]
        self._live = [live for _, live in pairs if live.is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the step, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._averaged, self._live, step)
        for average, live in self._copied:
            average.copy_(live)


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    return chain(model.parameters(), model.buffers())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's whole state as named tensors; its numbers are functions of spec and step."""
    return {
        f"{number}.{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items() if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = _laid_out_like(parameters[int(number)], value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Fused kernels walk through memory, so a moment must have its parameter's strides."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
