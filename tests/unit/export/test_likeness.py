import pytest
import torch
from torch import Tensor

from stillhouse.contract.spec import Classification, Embedding, MultiLabel, Regression
from stillhouse.contract.spec import Task as Section
from worker.engine.export.likeness import compare

TRAINED = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, -1.0], [-2.0, -3.0]])
EXPORTED = torch.tensor([[2.0, 1.5], [0.5, 0.0], [3.0, -1.0], [-2.0, 0.5]])


@pytest.mark.parametrize(
    ("section", "same"),
    [
        (Classification(), 2 / 4),  # 0 1 0 0, then 0 0 0 1
        (MultiLabel(), 7 / 8),  # true from a logit of 0 on: ++ ++ +- --, then ++ ++ +- -+
        (MultiLabel(threshold=0.6), 5 / 8),  # from 0.405 on: ++ -+ +- --, then ++ +- +- -+
        (Regression(), None), (Embedding(), None),
    ],
)
def test_numbers_and_decisions_are_compared(section: Section, same: float | None) -> None:
    found = compare("onnx", section, EXPORTED, {"outputs": TRAINED})
    assert found.max_output_difference == pytest.approx(3.5)
    assert found.same_decisions == same
    assert (found.format, found.num_samples, found.accuracy_difference) == ("onnx", 4, None)


@pytest.mark.parametrize(
    ("section", "labels", "places", "difference"),
    [
        (Classification(), torch.tensor([0, 1, 0, 0]), [0, 1, 2, 3], 2 / 4),  # 4 right, then 2
        (Classification(), torch.tensor([0, 0]), [0, 2], 0.0),
        (Classification(), torch.tensor([0, 1]), [2, 1], 1 / 2),
        (MultiLabel(), torch.tensor([[1.0, 1.0], [0.0, 0.0]]), [0, 3], 1 / 4),
        (Regression(), torch.tensor([[1.0, 1.0]]), [0], None),
        (Classification(), torch.tensor([], dtype=torch.int64), [], None),
    ],
)
def test_how_often_they_are_right_is_compared_where_there_are_labels(
    section: Section, labels: Tensor, places: list[int], difference: float | None
) -> None:
    samples = {"outputs": TRAINED, "labels": labels, "places": torch.tensor(places, dtype=torch.int64)}
    assert compare("onnx", section, EXPORTED, samples).accuracy_difference == difference
