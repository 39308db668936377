"""The weighted sum of terms: its value, its schedules, the shares of its gradient, and its parity with the spec."""

import inspect
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.spec import CrossEntropy, Dkd, Kl, Mse, Objective, Term
from stillhouse.contract.spec.term import HalfCosine, Linear, WarmUp
from worker.engine.objectives import LEARNED, OBJECTIVES, Loss, Views
from worker.engine.objectives.composite import OF_USE

# The inputs on which the reference implementations were run.
_PLACES = torch.arange(40, dtype=torch.float64).view(4, 10)
STUDENT = 3 * torch.sin(1.3 * _PLACES + 0.2)
TEACHER = 4 * torch.cos(0.7 * _PLACES - 0.5)
LABELS = torch.tensor([0, 3, 7, 9])
VIEWS = Views(STUDENT, TEACHER, LABELS)
KL_AT_1, KL_AT_4, CROSS_ENTROPY = 3.0172377978766725, 5.575735002319476, 4.545189855594127


def test_a_loss_is_the_weighted_sum_of_its_terms() -> None:
    objective = Objective(
        terms=[Kl(weight=0.7, temperature=4.0), CrossEntropy(weight=0.2), Mse(weight=0.0)]
    )
    loss = Loss(objective)
    assert loss.names == ["loss", "loss.kl", "loss.cross_entropy"]
    total, soft, hard = (float(value) for value in loss(VIEWS))
    assert (soft, hard) == pytest.approx((KL_AT_4, CROSS_ENTROPY))
    assert total == pytest.approx(0.7 * soft + 0.2 * hard)


def test_a_term_is_logged_by_its_name() -> None:
    terms: list[Term] = [Kl(temperature=1.0), Kl(name="softer", temperature=4.0), Dkd(weight=0)]
    loss = Loss(Objective(terms=terms))
    assert loss.names == ["loss", "loss.kl", "loss.softer"]
    assert loss.share_names == ["gradient_share.kl", "gradient_share.softer"]
    assert [float(value) for value in loss(VIEWS)] == pytest.approx([KL_AT_1 + KL_AT_4, KL_AT_1, KL_AT_4])


def test_the_gradient_of_a_loss_is_weighted_alike() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = Loss(Objective(terms=[CrossEntropy(weight=0.25), Mse(weight=3.0), Kl(weight=0.5)]))
    assert torch.autograd.gradcheck(lambda logits: loss(Views(logits, TEACHER, LABELS))[0], (student,))


@pytest.mark.parametrize(
    ("ramp", "factors"),
    [
        (None, {0.0: 1, 0.3: 1, 1.0: 1}),
        (WarmUp(fraction=0.4), {0.0: 0, 0.1: 0.25, 0.2: 0.5, 0.4: 1, 0.7: 1, 1.0: 1}),
        (WarmUp(fraction=1.0), {0.0: 0, 0.25: 0.25, 1.0: 1}),
        (Linear(start=0.5, end=2.0), {0.0: 0.5, 0.2: 0.8, 0.5: 1.25, 1.0: 2}),
        (Linear(), {0.0: 1, 0.75: 0.25, 1.0: 0}),
        # cos(pi/3) = 1/2 and cos(pi/4) = sqrt(1/2)
        (HalfCosine(), {0.0: 1, 0.25: 0.8535533905932737, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0}),
        (HalfCosine(start=0.2, end=1.0), {0.0: 0.2, 1 / 3: 0.4, 0.5: 0.6, 2 / 3: 0.8, 1.0: 1}),
    ],
    ids=str,
)
def test_a_weight_follows_its_ramp(ramp: Any, factors: dict[float, float]) -> None:  # noqa: ANN401 - any ramp
    loss = Loss(Objective(terms=[CrossEntropy(weight=3.0, weight_ramp=ramp), Mse(weight=1e-3)]))
    for progress, factor in factors.items():
        total, hard, squared = (float(value) for value in loss(VIEWS, progress))
        assert hard == pytest.approx(CROSS_ENTROPY)  # a term is logged without its weight
        assert total - 1e-3 * squared == pytest.approx(3.0 * factor * CROSS_ENTROPY, abs=1e-12), progress


def test_a_temperature_follows_its_ramp() -> None:
    loss = Loss(Objective(terms=[Kl(temperature=4.0, temperature_ramp=Linear(start=1.0, end=0.25))]))
    assert float(loss(VIEWS, 0.0)[1]) == pytest.approx(KL_AT_4)
    assert float(loss(VIEWS, 1.0)[1]) == pytest.approx(KL_AT_1)
    halfway = Loss(Objective(terms=[Kl(temperature=2.5)]))
    assert float(loss(VIEWS, 0.5)[1]) == pytest.approx(float(halfway(VIEWS)[1]))


def test_a_ramp_of_the_temperature_leaves_the_other_fields_alone() -> None:
    ramp = HalfCosine(start=2.0, end=1.0)
    ramped = Loss(Objective(terms=[Dkd(alpha=0.5, beta=3.0, temperature=4.0, temperature_ramp=ramp)]))
    plain = Loss(Objective(terms=[Dkd(alpha=0.5, beta=3.0, temperature=6.0)]))
    assert float(ramped(VIEWS, 0.5)[1]) == pytest.approx(float(plain(VIEWS)[1]))


def shares_by_hand(weights: dict[str, float], reach: Tensor | None = None) -> list[float]:
    """Closed forms: T (q - p) / N for kl, (q - y) / N for cross-entropy, 2 (student - teacher) / NC for mse.

    `reach` is how an earlier layer comes into the logits, by a product.
    """
    slopes = {
        "kl": 4 * ((STUDENT / 4).softmax(1) - (TEACHER / 4).softmax(1)) / 4,
        "cross_entropy": (STUDENT.softmax(1) - functional.one_hot(LABELS, 10)) / 4,
        "mse": 2 * (STUDENT - TEACHER) / 40,
    }
    norms = []
    for kind, weight in weights.items():
        squared = float(slopes[kind].square().sum())
        if reach is not None:
            squared += float((slopes[kind] @ reach.T).square().sum())
        norms.append(weight * squared**0.5)
    return [norm / sum(norms) for norm in norms]


def test_shares_of_the_gradient_are_those_of_the_weighted_terms() -> None:
    student = STUDENT.clone().requires_grad_()
    views = Views(student, TEACHER, LABELS)
    loss = Loss(Objective(terms=[
        Kl(weight=0.7, temperature=4.0, weight_ramp=Linear()), CrossEntropy(weight=0.2), Mse(weight=3.0)
    ]))
    for progress in (0.0, 0.25, 1.0):
        values = loss(views, progress)
        shares = loss.gradient_shares(values, views, progress)
        expected = shares_by_hand({"kl": 0.7 * (1 - progress), "cross_entropy": 0.2, "mse": 3.0})
        assert shares.tolist() == pytest.approx(expected, rel=1e-5)
        assert float(shares.sum()) == pytest.approx(1)
    values[0].backward()  # the graph is still there
    assert student.grad is not None


def test_shares_of_the_gradient_are_taken_at_the_layers_too() -> None:
    reach = torch.linspace(-1, 1, 60, dtype=torch.float64).view(6, 10)
    layer = (STUDENT @ torch.linalg.pinv(reach)).requires_grad_()
    offset = STUDENT - (layer @ reach).detach()
    frozen = torch.ones(4, 6)  # a layer that nothing trains
    student = layer @ reach + offset
    views = Views(student, TEACHER, LABELS, features={"body": layer, "stem": frozen})
    loss = Loss(Objective(terms=[Kl(weight=0.7, temperature=4.0), CrossEntropy(weight=0.2)]))
    shares = loss.gradient_shares(loss(views), views, 0.0)
    expected = shares_by_hand({"kl": 0.7, "cross_entropy": 0.2}, reach)
    assert shares.tolist() == pytest.approx(expected, rel=1e-5)
    assert shares_by_hand({"kl": 0.7, "cross_entropy": 0.2}) != pytest.approx(expected, rel=1e-3)


def test_a_term_that_reaches_nothing_has_no_share() -> None:
    student = STUDENT.clone().requires_grad_()
    views = Views(student, TEACHER, LABELS)
    loss = Loss(Objective(terms=[Kl(), Mse()]))
    total, soft, _ = loss(views)
    assert loss.gradient_shares([total, soft, torch.ones(())], views, 0.0).tolist() == [1, 0]


def test_no_gradient_has_no_shares() -> None:
    views = Views(STUDENT.clone().requires_grad_(), TEACHER, LABELS)
    loss = Loss(Objective(terms=[Kl(weight_ramp=WarmUp())]))
    assert loss.gradient_shares(loss(views, 0.0), views, 0.0).tolist() == [0]


def test_every_term_of_the_spec_has_a_function_that_takes_its_fields() -> None:
    kinds = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Term)[0])}
    assert kinds.keys() == OBJECTIVES.keys() | LEARNED.keys()
    for name, kind in kinds.items():
        fields = set(kind.model_fields) - OF_USE
        if name in LEARNED:
            assert set(inspect.signature(LEARNED[name]).parameters) == fields | {"shapes"}
        else:
            assert set(list(inspect.signature(OBJECTIVES[name]).parameters)[1:]) == fields
