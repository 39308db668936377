"""Each objective against published values, an independent formula, and its own gradient."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from stillhouse.contract.spec import CrossEntropy, Kl, Mse, Objective, Term
from worker.engine.objectives import LEARNED, OBJECTIVES, Loss, Views
from worker.engine.objectives.composite import OF_USE
from worker.engine.objectives.cross_entropy import cross_entropy
from worker.engine.objectives.kl import kl
from worker.engine.objectives.mse import mse

# The inputs on which the reference implementations were run.
_PLACES = torch.arange(40, dtype=torch.float64).view(4, 10)
STUDENT = 3 * torch.sin(1.3 * _PLACES + 0.2)
TEACHER = 4 * torch.cos(0.7 * _PLACES - 0.5)
LABELS = torch.tensor([0, 3, 7, 9])
VIEWS = Views(STUDENT, TEACHER, LABELS)

Function = Callable[..., Tensor]
SOFTENED = {"kl", "bce"}  # terms with a temperature
ROWS = {"binary_cross_entropy", "squared_error"}  # terms whose labels are a row per item


@pytest.mark.parametrize(
    ("function", "arguments", "value"),
    [
        (cross_entropy, {}, 4.545189855594127),  # torch.nn.functional.cross_entropy
        (kl, {"temperature": 1.0}, 3.0172377978766725),  # megvii-research/mdistiller:mdistiller/distillers/KD.py
        (kl, {"temperature": 4.0}, 5.575735002319476),  # HobbitLong/RepDistiller:distiller_zoo/KD.py
        (mse, {}, 12.141801860842477),  # airaria/TextBrewer:src/textbrewer/losses.py
    ],
)
def test_published_values_are_met(function: Function, arguments: dict[str, Any], value: float) -> None:
    assert float(function(VIEWS, **arguments)) == pytest.approx(value, rel=1e-6)
    single = Views(STUDENT.float(), TEACHER.float(), LABELS)
    assert float(function(single, **arguments)) == pytest.approx(value, rel=1e-5)


def by_hand(kind: str, student: Any, teacher: Any, labels: Any, temperature: float = 3.0) -> float:  # noqa: ANN401
    """The definitions, item by item, in NumPy."""
    def softmax(logits: Any) -> Any:  # noqa: ANN401
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def entropy(truth: Any, row: Any) -> Any:  # noqa: ANN401
        chance = 1 / (1 + np.exp(-row))
        return -np.sum(truth * np.log(chance) + (1 - truth) * np.log(1 - chance))

    items = []
    for row, taught, label in zip(student, teacher, labels, strict=True):
        if kind == "mse":
            items.append(np.mean((row - taught) ** 2))
        elif kind == "squared_error":
            items.append(np.mean((row - label) ** 2))
        elif kind == "cosine":
            items.append(1 - row @ taught / np.sqrt((row @ row) * (taught @ taught)))
        elif kind == "binary_cross_entropy":
            items.append(entropy(label, row))
        elif kind == "bce":
            items.append(temperature**2 * entropy(1 / (1 + np.exp(-taught / temperature)), row / temperature))
        elif kind == "cross_entropy":
            items.append(-np.log(softmax(row)[label]))
        else:
            p, q = softmax(taught / temperature), softmax(row / temperature)
            items.append(temperature**2 * np.sum(p * np.log(p / q)))
    return float(np.mean(items))


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("items", [1, 7])
def test_an_independent_formula_agrees(kind: str, items: int) -> None:
    random = np.random.default_rng(items)
    student, teacher = random.normal(size=(2, items, 5)) * 3
    labels = random.integers(0, 2, (items, 5)) if kind in ROWS else random.integers(0, 5, items)
    views = Views(torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels))
    arguments = {"temperature": 3.0} if kind in SOFTENED else {}
    expected = by_hand(kind, student, teacher, labels)
    assert float(OBJECTIVES[kind](views, **arguments)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(kl, {"temperature": 2.5}), (cross_entropy, {}), (cross_entropy, {"label_smoothing": 0.2}), (mse, {})],
)
@pytest.mark.parametrize("items", [1, 4])
def test_the_gradient_is_that_of_the_value(function: Function, arguments: dict[str, Any], items: int) -> None:
    student = STUDENT[:items].clone().requires_grad_()

    def value(logits: Tensor) -> Tensor:
        return function(Views(logits, TEACHER[:items], LABELS[:items]), **arguments) * 1.7

    assert torch.autograd.gradcheck(value, (student,))


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extreme_logits_stay_finite(kind: str, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]], dtype=dtype)
    arguments = {"temperature": 1.0} if kind in SOFTENED else {}
    labels = torch.tensor([[1, 0, 1]]) if kind in ROWS else torch.tensor([1])
    value = OBJECTIVES[kind](Views(student, teacher, labels), **arguments)
    value.backward()
    assert value.isfinite()
    assert value.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_half_precision_is_widened_before_the_exponentials() -> None:
    half = Views(STUDENT.bfloat16(), TEACHER.bfloat16())
    exact = kl(Views(half.student.double(), half.soft_labels.double()), temperature=4.0)
    assert float(kl(half, temperature=4.0)) == pytest.approx(float(exact), rel=1e-5)


def test_unlabelled_items_count_for_nothing_whatever_stands_in_their_label() -> None:
    student = STUDENT.clone().requires_grad_()
    labels = torch.tensor([0, -100, 10**6, 9])
    value = cross_entropy(Views(student, None, labels, torch.tensor([True, False, False, True])))
    value.backward()
    assert value.item() == pytest.approx(float(cross_entropy(Views(STUDENT[[0, 3]], None, LABELS[[0, 3]]))))
    assert student.grad is not None
    assert not student.grad[1:3].any()
    assert student.grad[0].any()


def test_no_labelled_item_is_no_loss() -> None:
    student = STUDENT.clone().requires_grad_()
    value = cross_entropy(Views(student, None, LABELS, torch.zeros(4, dtype=torch.bool)))
    value.backward()
    assert value.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_kl_is_zero_for_a_student_that_answers_like_its_teacher() -> None:
    assert float(kl(Views(TEACHER + 5, TEACHER), temperature=2.0)) == pytest.approx(0, abs=1e-12)


def test_a_loss_is_the_weighted_sum_of_its_terms() -> None:
    objective = Objective(
        terms=[Kl(weight=0.7, temperature=4.0), CrossEntropy(weight=0.2), Mse(weight=0.0)]
    )
    loss = Loss(objective)
    assert loss.names == ["loss", "loss.kl", "loss.cross_entropy"]
    total, soft, hard = (float(value) for value in loss(VIEWS))
    assert (soft, hard) == pytest.approx((5.575735002319476, 4.545189855594127))
    assert total == pytest.approx(0.7 * soft + 0.2 * hard)


def test_the_gradient_of_a_loss_is_weighted_alike() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = Loss(Objective(terms=[CrossEntropy(weight=0.25), Mse(weight=3.0), Kl(weight=0.5)]))
    assert torch.autograd.gradcheck(lambda logits: loss(Views(logits, TEACHER, LABELS))[0], (student,))


def test_every_term_of_the_spec_has_a_function_that_takes_its_fields() -> None:
    kinds = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Term)[0])}
    assert kinds.keys() == OBJECTIVES.keys() | LEARNED.keys()
    for name, kind in kinds.items():
        fields = set(kind.model_fields) - OF_USE
        if name in LEARNED:
            assert set(inspect.signature(LEARNED[name]).parameters) == fields | {"shapes"}
        else:
            assert set(list(inspect.signature(OBJECTIVES[name]).parameters)[1:]) == fields


def test_every_term_has_its_row_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "objectives.md").read_text("utf-8")
    rows = {
        row.group(1): set(re.findall(r"`(\w+)`", row.group(2)))
        for row in re.finditer(r"^\| `(\w+)` \|([^|]*)\|", page, re.MULTILINE)
    }
    fields = {name: set(list(inspect.signature(function).parameters)[1:]) for name, function in OBJECTIVES.items()}
    assert rows == fields
