import pytest
import torch
from torch import nn

from stillhouse.contract.spec import Mse, Objective
from worker.engine.objectives import Loss
from worker.engine.state import TrainingState


def state() -> TrainingState:
    model = nn.Linear(1, 1, bias=False)
    return TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), Loss(Objective(terms=[Mse()])))


def offer(to: TrainingState, step: int, score: float, loss: float | None = None) -> None:
    to.step = step
    with torch.no_grad():
        to.model.weight.fill_(step)  # type: ignore[operator]
    to.select(score, loss)


@pytest.mark.parametrize(
    ("scores", "selected"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # at equal scores the lower loss wins
        ([(0.5, 1.0), (0.5, 1.0)], 1),
        ([(0.5, None), (0.5, None), (0.6, None)], 3),
        ([(-3.0, 3.0), (-2.0, 2.0), (-2.5, 2.5)], 2),
    ],
)
def test_the_best_weights_are_kept(scores: list[tuple[float, float | None]], selected: int) -> None:
    found = state()
    for step, (score, loss) in enumerate(scores, 1):
        offer(found, step, score, loss)
    assert found.selected_step == selected
    assert found.selected["weight"].item() == selected


@pytest.mark.parametrize(
    ("scores", "min_gain", "stops_at"),
    [
        ([0.1, 0.2, 0.2, 0.2], 0.0, 4),
        ([0.1, 0.1, 0.2, 0.2, 0.3], 0.0, None),
        ([0.1, 0.15, 0.19, 0.2], 0.1, 3),  # small gains do not add up: each is compared with the last that counted
        ([0.1, 0.15, 0.21, 0.22, 0.23], 0.1, 5),
    ],
)
def test_it_stops_after_two_evaluations_without_a_gain(
    scores: list[float], min_gain: float, stops_at: int | None
) -> None:
    found = state()
    for number, score in enumerate(scores, 1):
        found.count_gain(score, min_gain=min_gain, patience=2)
        assert found.stopped_early == (number == stops_at)
        if found.stopped_early:
            return
    assert stops_at is None
