import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from stillhouse.contract.spec import Optimizer, Training
from worker.engine.optim import Average, build_optimizer, build_schedule, optimizer_tensors, restore_optimizer


def training(**sections: Any) -> Training:  # noqa: ANN401 - sections of the spec as JSON
    return Training.model_validate({"optimizer": {"kind": "sgd", "learning_rate": 0.5}} | sections)


def rates(of: Training, total: int) -> list[float]:
    return [build_schedule(of, total)(step) for step in range(total)]


def torch_rates(build: Callable[[torch.optim.Optimizer], Any], total: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, found = build(optimizer), []
    for step in range(total):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if step + 1 < total:
            schedule.step()
    return found


@pytest.mark.parametrize("total", [10, 37, 500])
def test_one_cycle_is_that_of_torch(total: int) -> None:
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=total, cycle_momentum=False),
        total,
    )
    assert rates(training(schedule={"kind": "one_cycle"}), total) == pytest.approx(expected)


def test_cosine_is_that_of_torch() -> None:
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.05), 50
    )
    assert rates(training(schedule={"kind": "cosine", "final_fraction": 0.1}), 50) == pytest.approx(expected)


def test_steps_multiply_at_their_milestones() -> None:
    found = rates(training(schedule={"kind": "step", "milestones": [0.5, 0.8], "factor": 0.1}), 10)
    assert found == pytest.approx([0.5] * 5 + [0.05] * 3 + [0.005] * 2)


def test_warm_up_rises_in_equal_steps_and_never_stands_at_nothing() -> None:
    found = rates(training(schedule={"kind": "constant"}, warmup_fraction=0.4), 10)
    assert found == pytest.approx([0.125, 0.25, 0.375, 0.5] + [0.5] * 6)


@pytest.mark.parametrize("kind", ["constant", "cosine", "one_cycle", "step"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_trainings_have_a_step_size(kind: str, total: int) -> None:
    found = rates(training(schedule={"kind": kind}), total)
    assert all(math.isfinite(rate) and 0 < rate <= 0.5 for rate in found)


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (
            {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
            lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
        ),
        ({"kind": "sgd", "learning_rate": 0.1, "momentum": 0}, lambda weights: torch.optim.SGD(weights, lr=0.1)),
        (
            {"kind": "adam", "learning_rate": 0.01, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1},
            lambda weights: torch.optim.Adam(weights, lr=0.01, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1),
        ),
        (
            {"kind": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
            lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
        ),
    ],
)
def test_an_optimiser_is_the_one_of_its_spec(
    spec: dict[str, Any], reference: Callable[[Any], torch.optim.Optimizer]
) -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    parsed: Optimizer = TypeAdapter(Optimizer).validate_python(spec)
    optimizers = build_optimizer(parsed, ours.parameters()), reference(theirs.parameters())
    for step in range(4):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step))).pow(2).sum().backward()
            optimizer.step()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name])


def test_moments_are_restored_in_their_parameters_memory_format() -> None:
    """Fused kernels walk through memory: moments laid out otherwise would be given to the wrong weights."""
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    spec: Optimizer = TypeAdapter(Optimizer).validate_python({"kind": "adamw"})
    optimizer = build_optimizer(spec, model.parameters())

    def advance(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.arange(75.0).view(1, 3, 5, 5)).pow(2).sum().backward()
        optimizer.step()

    advance(model, optimizer)
    twin = copy.deepcopy(model)
    resumed = build_optimizer(spec, twin.parameters())
    saved = {name: tensor.clone().contiguous() for name, tensor in optimizer_tensors(optimizer).items()}
    restore_optimizer(resumed, saved)
    advance(model, optimizer)
    advance(twin, resumed)
    assert torch.equal(twin.weight, model.weight)


def test_an_average_follows_weights_and_buffers() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, decay=0.5)
    weights, means = [1.0], [0.0]
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.fill_(step * 10.0)
        model(torch.tensor([[float(step)], [step + 2.0]]))
        decay = min(0.5, (1 + step) / (10 + step))
        weights.append(decay * weights[-1] + (1 - decay) * step * 10)
        assert model.running_mean is not None
        means.append(decay * means[-1] + (1 - decay) * float(model.running_mean))
        average.update(step)
    found = average.model
    assert isinstance(found, nn.BatchNorm1d)
    assert found.running_mean is not None
    assert found.num_batches_tracked is not None
    assert float(found.weight) == pytest.approx(weights[-1])
    assert float(found.running_mean) == pytest.approx(means[-1])
    assert int(found.num_batches_tracked) == 5
    assert not found.training
    assert not found.weight.requires_grad
