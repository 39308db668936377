"""Each term that looks at outputs, against published values, an independent formula, and its own gradient."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.spec import (
    Bce,
    BinaryCrossEntropy,
    CrossEntropy,
    Dist,
    Dkd,
    Huber,
    Js,
    Kl,
    Mse,
    Nkd,
    Objective,
    ReverseKl,
    SquaredError,
    Ttm,
    Wttm,
)
from stillhouse.contract.spec.logit_terms import LogitTerm
from worker.engine.objectives import Loss, Views

Numbers = NDArray[np.float64]

# The inputs on which the reference implementations were run.
_PLACES = torch.arange(40, dtype=torch.float64).view(4, 10)
STUDENT = 3 * torch.sin(1.3 * _PLACES + 0.2)
TEACHER = 4 * torch.cos(0.7 * _PLACES - 0.5)
LABELS = torch.tensor([0, 3, 7, 9])
VIEWS = Views(STUDENT, TEACHER, LABELS)

CASES: list[LogitTerm] = [
    Kl(temperature=3.0),
    Kl(temperature=3.0, standardize=True),
    ReverseKl(temperature=3.0),
    Js(beta=0.3, temperature=3.0),
    Mse(),
    Dkd(alpha=0.7, beta=2.5, temperature=3.0),
    Dist(beta=0.7, gamma=1.9, temperature=3.0),
    Nkd(gamma=0.8, temperature=3.0),
    Ttm(gamma=0.3),
    Wttm(gamma=0.3),
    Bce(temperature=3.0),
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.2),
    BinaryCrossEntropy(positive_weight=2.5),
    SquaredError(),
    Huber(delta=0.8),
]
LABELLED = [term for term in CASES if term.needs_labels]
TAUGHT = [term for term in CASES if term.needs_teacher]


def value(term: LogitTerm, views: Views) -> Tensor:
    """As a job computes it."""
    return Loss(Objective(terms=[term])).forward(views)[1]


def named(term: LogitTerm) -> str:
    fields = [f"{name}={value}" for name, value in term.model_dump(exclude_defaults=True).items()]
    return "-".join([term.kind, *fields])


def labels_for(term: LogitTerm, items: int, outputs: int) -> Tensor:
    random = torch.Generator().manual_seed(items)
    if term.kind == "binary_cross_entropy":
        labels = torch.randint(0, 2, (items, outputs), generator=random).double()
        labels[0, 0] = 0.3  # mixed of two items
        return labels
    if "regression" in term.tasks and "classification" not in term.tasks:
        return torch.randn(items, outputs, generator=random, dtype=torch.float64)
    return torch.randint(0, outputs, (items,), generator=random)


def test_every_term_is_in_the_cases() -> None:
    assert {type(term) for term in CASES} == set(get_args(LogitTerm))


@pytest.mark.parametrize(
    ("term", "published"),
    [
        (CrossEntropy(), 4.545189855594127),  # torch.nn.functional.cross_entropy
        (Kl(temperature=1.0), 3.0172377978766725),  # megvii-research/mdistiller:mdistiller/distillers/KD.py
        (Kl(temperature=4.0), 5.575735002319476),  # HobbitLong/RepDistiller:distiller_zoo/KD.py
        # sunshangquan/logit-standardization-KD:mdistiller/distillers/KD.py
        (Kl(temperature=2.0, standardize=True), 0.86241106925999),
        (Dkd(alpha=1.0, beta=8.0, temperature=4.0), 45.329082240026),  # mdistiller:mdistiller/distillers/DKD.py
        (Dkd(alpha=1.0, beta=2.0, temperature=4.0), 11.797938402203485),
        (Dist(beta=1.0, gamma=1.0, temperature=1.0), 2.100723352728538),  # hunto/DIST_KD:segmentation/losses/dist_kd.py
        # hunto/image_classification_sota:lib/models/losses/dist_kd.py
        (Dist(beta=1.0, gamma=1.0, temperature=4.0), 32.64003336453677),
        (Nkd(gamma=1.5, temperature=1.0), 7.06743365747254),  # yzd-v/cls_KD:mmcls/models/dis_losses/nkd.py
        (Ttm(gamma=0.1), 1.5941922512960116),  # zkxufo/TTM:distiller_zoo/ttm.py
        (Wttm(gamma=0.2), 8.035540553780532),  # zkxufo/TTM:distiller_zoo/wttm.py
        (Mse(), 12.141801860842477),  # airaria/TextBrewer:src/textbrewer/losses.py
        (ReverseKl(temperature=1.0), 3.0166122321570796),  # huggingface/trl:trl/experimental/gkd/gkd_trainer.py
        (Js(beta=0.5, temperature=1.0), 0.4211442897854265),  # the same
        (Js(beta=0.1, temperature=1.0), 0.1872890289389078),  # the same
    ],
    ids=str,
)
def test_published_values_are_met(term: LogitTerm, published: float) -> None:
    assert float(value(term, VIEWS)) == pytest.approx(published, rel=1e-6)
    single = Views(STUDENT.float(), TEACHER.float(), LABELS)
    assert float(value(term, single)) == pytest.approx(published, rel=1e-5)


def softmax(logits: Numbers) -> Numbers:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def sigmoid(logits: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-logits)))


class Word(NamedTuple):
    """What one or more teachers say of an item. The functions after it are definitions for one item."""

    members: Numbers  # (M, C)
    weights: Numbers  # (M,)

    def mean(self, answers: list[Numbers]) -> Numbers:
        return np.asarray(sum(weight * answer for weight, answer in zip(self.weights, answers, strict=True)))

    def softmax(self, temperature: float) -> Numbers:
        return self.mean([softmax(member / temperature) for member in self.members])

    def sigmoid(self, temperature: float) -> Numbers:
        return self.mean([sigmoid(member / temperature) for member in self.members])


Hand = Callable[[Any, Numbers, Word, Any], float]


def kl_by_hand(term: Kl, row: Numbers, word: Word, _: Any) -> float:  # noqa: ANN401 - a label of any kind
    t = term.temperature
    p, q = word.softmax(t), softmax(row / t)
    if term.standardize:
        standard = [(x - np.mean(x)) / (np.std(x, ddof=1) + 1e-7) for x in (t * np.log(p), row)]
        p, q = (softmax(x / t) for x in standard)
    return float(t**2 * np.sum(p * np.log(p / q)))


def reverse_kl_by_hand(term: ReverseKl, row: Numbers, word: Word, _: Any) -> float:  # noqa: ANN401 - a label
    t = term.temperature
    p, q = word.softmax(t), softmax(row / t)
    return float(t**2 * np.sum(q * np.log(q / p)))


def js_by_hand(term: Js, row: Numbers, word: Word, _: Any) -> float:  # noqa: ANN401 - a label of any kind
    t, share = term.temperature, term.beta
    p, q = word.softmax(t), softmax(row / t)
    m = share * p + (1 - share) * q
    return float(t**2 * (share * np.sum(p * np.log(p / m)) + (1 - share) * np.sum(q * np.log(q / m))))


def mse_by_hand(_: Mse, row: Numbers, word: Word, __: Any) -> float:  # noqa: ANN401 - a label of any kind
    return float(np.mean((row - word.mean(list(word.members))) ** 2))


def dkd_by_hand(term: Dkd, row: Numbers, word: Word, label: int) -> float:
    t = term.temperature
    p, q = word.softmax(t), softmax(row / t)
    sure = p[label] * np.log(p[label] / q[label]) + (1 - p[label]) * np.log((1 - p[label]) / (1 - q[label]))
    among = 0.0
    for other in set(range(len(row))) - {int(label)}:
        p_hat, q_hat = p[other] / (1 - p[label]), q[other] / (1 - q[label])
        among += p_hat * np.log(p_hat / q_hat)
    return float(t**2 * (term.alpha * sure + term.beta * among))


def nkd_by_hand(term: Nkd, row: Numbers, word: Word, label: int) -> float:
    t = term.temperature
    p, q = word.softmax(t), softmax(row / t)
    found = -word.softmax(1.0)[label] * np.log(softmax(row)[label])
    for other in set(range(len(row))) - {int(label)}:
        found -= term.gamma * t**2 * p[other] / (1 - p[label]) * np.log(q[other] / (1 - q[label]))
    return float(found)


def ttm_by_hand(term: Ttm, row: Numbers, word: Word, _: Any) -> float:  # noqa: ANN401 - a label of any kind
    powers = word.softmax(1.0) ** term.gamma
    powered = powers / np.sum(powers)
    return float(np.sum(powered * np.log(powered / softmax(row))))


def wttm_by_hand(term: Wttm, row: Numbers, word: Word, label: Any) -> float:  # noqa: ANN401 - a label of any kind
    return float(np.sum(word.softmax(1.0) ** term.gamma)) * ttm_by_hand(Ttm(gamma=term.gamma), row, word, label)


def bce_by_hand(term: Bce, row: Numbers, word: Word, _: Any) -> float:  # noqa: ANN401 - a label of any kind
    p, q = word.sigmoid(term.temperature), sigmoid(row / term.temperature)
    return float(-(term.temperature**2) * np.sum(p * np.log(q) + (1 - p) * np.log(1 - q)))


def cross_entropy_by_hand(term: CrossEntropy, row: Numbers, _: Word, label: Any) -> float:  # noqa: ANN401 - or shares
    shares = np.eye(len(row))[label] if np.ndim(label) == 0 else label
    smooth = (1 - term.label_smoothing) * shares + term.label_smoothing / len(row)
    return float(-np.sum(smooth * np.log(softmax(row))))


def binary_cross_entropy_by_hand(term: BinaryCrossEntropy, row: Numbers, _: Word, label: Numbers) -> float:
    q = sigmoid(row)
    return float(-np.sum(term.positive_weight * label * np.log(q) + (1 - label) * np.log(1 - q)))


def squared_error_by_hand(_: SquaredError, row: Numbers, __: Word, label: Numbers) -> float:
    return float(np.mean((row - label) ** 2))


def huber_by_hand(term: Huber, row: Numbers, _: Word, label: Numbers) -> float:
    distances = np.abs(row - label)
    return float(np.mean([
        d**2 / 2 if d <= term.delta else term.delta * (d - term.delta / 2) for d in distances
    ]))


BY_HAND: dict[str, Hand] = {
    "kl": kl_by_hand, "reverse_kl": reverse_kl_by_hand, "js": js_by_hand, "mse": mse_by_hand, "dkd": dkd_by_hand,
    "nkd": nkd_by_hand, "ttm": ttm_by_hand, "wttm": wttm_by_hand, "bce": bce_by_hand,
    "cross_entropy": cross_entropy_by_hand, "binary_cross_entropy": binary_cross_entropy_by_hand,
    "squared_error": squared_error_by_hand, "huber": huber_by_hand,
}


def dist_by_hand(term: Dist, student: Numbers, words: list[Word]) -> float:
    """The one term whose items cannot be told apart."""
    t = term.temperature
    q = np.stack([softmax(row / t) for row in student])
    p = np.stack([word.softmax(t) for word in words])

    def correlation(x: Numbers, y: Numbers) -> float:
        x, y = x - x.mean(), y - y.mean()
        return float(x @ y / (np.sqrt(x @ x) * np.sqrt(y @ y) + 1e-8))

    between_classes = np.mean([correlation(*pair) for pair in zip(p, q, strict=True)])
    between_items = np.mean([correlation(*pair) for pair in zip(p.T, q.T, strict=True)])
    found = term.beta * (1 - between_classes)
    if len(student) > 1:
        found += term.gamma * (1 - between_items)
    return float(t**2 * found)


def mean_by_hand(term: LogitTerm, student: Tensor, words: list[Word], labels: Any, known: Tensor) -> float:  # noqa: ANN401
    if isinstance(term, Dist):
        return dist_by_hand(term, student.numpy(), words)
    items = [
        BY_HAND[term.kind](term, row.numpy(), word, label)
        for row, word, label, is_known in zip(student, words, labels, known, strict=True)
        if is_known or not term.needs_labels
    ]
    return sum(items) / len(items)


@pytest.mark.parametrize("term", CASES, ids=named)
@pytest.mark.parametrize("classes", [2, 5, 13])
@pytest.mark.parametrize(("items", "is_masked"), [(1, False), (7, False), (7, True)])
def test_an_independent_formula_agrees(term: LogitTerm, items: int, classes: int, *, is_masked: bool) -> None:
    random = torch.Generator().manual_seed(classes)
    student, teacher = torch.randn(2, items, classes, generator=random, dtype=torch.float64) * 3
    labels = labels_for(term, items, classes)
    known = torch.arange(items) % 3 != 1 if is_masked else torch.ones(items, dtype=torch.bool)
    words = [Word(row[None].numpy(), np.ones(1)) for row in teacher]
    expected = mean_by_hand(term, student, words, labels.numpy(), known)
    found = value(term, Views(student, teacher, labels, known if is_masked else None))
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("term", TAUGHT, ids=named)
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0]])
def test_an_ensemble_says_the_mean_of_its_members_probabilities(term: LogitTerm, weights: list[float] | None) -> None:
    random = torch.Generator().manual_seed(3)
    student, *members = torch.randn(4, 6, 5, generator=random, dtype=torch.float64) * 3
    teacher, labels = torch.stack(members, dim=1), labels_for(term, 6, 5)
    shares = np.array(weights or [1.0, 1.0, 1.0]) / sum(weights or [1.0, 1.0, 1.0])
    words = [Word(item.numpy(), shares) for item in teacher]
    expected = mean_by_hand(term, student, words, labels.numpy(), torch.ones(6, dtype=torch.bool))
    views = Views(student, teacher, labels, teacher_weights=None if weights is None else torch.tensor(weights))
    assert float(value(term, views)) == pytest.approx(expected, rel=1e-6)  # the weights are float32


@pytest.mark.parametrize("term", CASES, ids=named)
@pytest.mark.parametrize(("items", "is_masked"), [(1, False), (4, False), (4, True)])
def test_the_gradient_is_that_of_the_value(term: LogitTerm, items: int, *, is_masked: bool) -> None:
    student = STUDENT[:items].clone().requires_grad_()
    labels = labels_for(term, items, 10)
    mask = torch.arange(items) != 2 if is_masked else None

    def scaled(logits: Tensor) -> Tensor:
        return value(term, Views(logits, TEACHER[:items], labels, mask)) * 1.7

    assert torch.autograd.gradcheck(scaled, (student,))


@pytest.mark.parametrize("term", CASES, ids=named)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("items", [1, 3])
def test_extreme_logits_stay_finite(term: LogitTerm, dtype: torch.dtype, items: int) -> None:
    rows = torch.tensor([[1e4, -1e4, 0.0, 3.0], [-1e4, 1e4, 1e4, 1e4], [1.0, 2.0, -1e4, -1e4]])
    student = rows[:items].to(dtype).requires_grad_()
    teacher = -rows[:items].to(dtype)
    found = value(term, Views(student, teacher, labels_for(term, items, 4)))
    found.backward()
    assert found.isfinite()
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("term", CASES, ids=named)
def test_single_precision_loses_nothing_at_large_logits(term: LogitTerm) -> None:
    # A hundred times the size at which a softmax in probabilities has underflowed.
    student, teacher, labels = (STUDENT * 100).float(), (TEACHER * 100).float(), labels_for(term, 4, 10)
    exact = value(term, Views(student.double(), teacher.double(), labels))
    assert float(value(term, Views(student, teacher, labels))) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("term", CASES, ids=named)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_before_anything_is_computed(term: LogitTerm, dtype: torch.dtype) -> None:
    student, teacher, labels = STUDENT.to(dtype), TEACHER.to(dtype), labels_for(term, 4, 10)
    exact = value(term, Views(student.double(), teacher.double(), labels))
    found = value(term, Views(student, teacher, labels))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("term", LABELLED, ids=named)
def test_unlabelled_items_count_for_nothing_whatever_stands_in_their_label(term: LogitTerm) -> None:
    student, labels = STUDENT.clone().requires_grad_(), labels_for(term, 4, 10)
    spoilt = labels.clone()
    spoilt[1], spoilt[2] = (math.nan, math.inf) if labels.is_floating_point() else (-100, 10**6)
    found = value(term, Views(student, TEACHER, spoilt, torch.tensor([True, False, False, True])))
    found.backward()
    alone = Views(STUDENT[[0, 3]], TEACHER[[0, 3]], labels[[0, 3]])
    assert found.item() == pytest.approx(float(value(term, alone)))
    assert student.grad is not None
    assert not student.grad[1:3].any()
    assert student.grad[0].any()


@pytest.mark.parametrize("term", LABELLED, ids=named)
def test_no_labelled_item_is_no_loss(term: LogitTerm) -> None:
    student = STUDENT.clone().requires_grad_()
    found = value(term, Views(student, TEACHER, labels_for(term, 4, 10), torch.zeros(4, dtype=torch.bool)))
    found.backward()
    assert found.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_takes_shares_of_classes(smoothing: float) -> None:
    term = CrossEntropy(label_smoothing=smoothing)
    whole = functional.one_hot(LABELS, 10).double()
    assert float(value(term, Views(STUDENT, None, whole))) == pytest.approx(float(value(term, VIEWS)))
    mixed = 0.7 * whole + 0.3 * whole.flip(0)
    nobody = Word(np.zeros((1, 10)), np.ones(1))
    by_item = [
        cross_entropy_by_hand(term, row.numpy(), nobody, label.numpy())
        for row, label in zip(STUDENT, mixed, strict=True)
    ]
    assert float(value(term, Views(STUDENT, None, mixed.float()))) == pytest.approx(np.mean(by_item), rel=1e-6)
    assert value(term, Views(STUDENT.float(), None, mixed)).dtype == torch.float32
    spoilt = mixed.clone()
    spoilt[2] = math.nan
    known = torch.tensor([True, True, False, True])
    found = value(term, Views(STUDENT, None, spoilt, known))
    assert float(found) == pytest.approx(np.mean([by_item[item] for item in (0, 1, 3)]))


@pytest.mark.parametrize("term", [term for term in CASES if term.needs_true_class], ids=named)
def test_shares_of_classes_never_reach_a_term_with_one_true_class(term: LogitTerm) -> None:
    with pytest.raises(AssertionError):
        value(term, Views(STUDENT, TEACHER, functional.one_hot(LABELS, 10).double()))


@pytest.mark.parametrize("term", [SquaredError(), Huber()], ids=named)
def test_regression_on_one_value_takes_labels_without_an_axis_for_it(term: LogitTerm) -> None:
    student, labels = STUDENT[:, :1], TEACHER[:, 0]
    assert value(term, Views(student, None, labels)) == value(term, Views(student, None, labels[:, None]))


@pytest.mark.parametrize(
    "term", [term for term in TAUGHT if term.kind not in {"nkd", "ttm", "wttm", "bce"}], ids=named
)
def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn(term: LogitTerm) -> None:
    # Published correlations are a little under 1 even then, by what is added to their denominators.
    least = 1e-4 if isinstance(term, Dist) else 1e-12
    assert float(value(term, Views(TEACHER, TEACHER, LABELS))) == pytest.approx(0, abs=least)


@pytest.mark.parametrize(
    ("term", "best"),
    [(Nkd(gamma=0.0), None), (Ttm(gamma=0.3), 0.3 * TEACHER), (Wttm(gamma=0.3), 0.3 * TEACHER), (Bce(), TEACHER)],
    ids=str,
)
def test_the_least_value_is_where_it_should_be(term: LogitTerm, best: Tensor | None) -> None:
    # Of nkd without its second part: all on the true class.
    student = (1e3 * functional.one_hot(LABELS, 10).double() if best is None else best.clone()).requires_grad_()
    value(term, Views(student, TEACHER, LABELS)).backward()
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-12


def test_standardised_logits_have_neither_place_nor_scale() -> None:
    term = Kl(standardize=True)
    moved = Views(STUDENT * 7 + 100, TEACHER / 5 - 30)
    assert float(value(term, moved)) == pytest.approx(float(value(term, VIEWS)), rel=1e-5)


def test_equal_logits_can_be_standardised() -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    found = value(Kl(standardize=True), Views(student, TEACHER[:2, :5].float()))
    found.backward()
    assert found.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_jensen_shannon_tends_to_both_divergences_and_never_exceeds_log_2() -> None:
    share = 1e-6
    assert float(value(Js(beta=share), VIEWS)) / share == pytest.approx(float(value(Kl(), VIEWS)), rel=1e-3)
    assert float(value(Js(beta=1 - share), VIEWS)) / share == pytest.approx(float(value(ReverseKl(), VIEWS)), rel=1e-3)
    apart = Views(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]))
    assert float(value(Js(temperature=3.0), apart)) == pytest.approx(9 * math.log(2))


def test_one_item_has_no_correlation_between_items() -> None:
    one = Views(STUDENT[:1], TEACHER[:1])
    assert value(Dist(gamma=5.0), one) == value(Dist(gamma=0.0), one)
    assert float(value(Dist(beta=0.0), one)) == 0


def test_huber_is_half_the_squared_error_within_its_delta_and_smooth_l1_at_1() -> None:
    views = Views(STUDENT, None, TEACHER)
    assert float(value(Huber(delta=1e3), views)) == pytest.approx(float(value(SquaredError(), views)) / 2)
    assert float(value(Huber(), views)) == pytest.approx(float(functional.smooth_l1_loss(STUDENT, TEACHER)))
