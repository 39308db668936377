"""Whole jobs whose objective looks at layers: every term trains, resumes, and computes as wide as it is asked to."""

from typing import Any, get_args

import pytest
import torch

from stillhouse.contract.spec import Cnn, Term
from stillhouse.contract.spec.term import FeatureTerm
from stillhouse.contract.status import Phase
from tests.fixtures.lessons import Lesson, everything

KINDS = sorted(
    term.model_fields["kind"].default for term in get_args(get_args(Term)[0]) if issubclass(term, FeatureTerm)
)
LEARN = ["cosine", "crd", "fitnet", "review", "vid"]


def sections(kind: str) -> dict[str, Any]:
    pairs = [{"student": path, "teacher": path} for path in ("body.0", "body.4")]
    return {
        "student": {"kind": "cnn", "channels": [4, 6]},
        "objective": {"terms": [{"kind": "kl"}, {"kind": kind, "pairs": pairs}]},
        "control": False,
    }


@pytest.fixture
def deep(lesson: Lesson) -> Lesson:
    lesson.write_teacher(Cnn(channels=[4, 8]))
    return lesson


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_on_layers_pulls_and_resumes_as_if_it_had_never_stopped(deep: Lesson, kind: str) -> None:
    spec = deep.spec(**sections(kind), training={"epochs": 2})
    whole = deep.train(spec)
    shares = [value for _, value in whole.keeper.trainings[Phase.DISTILLING].curves[f"gradient_share.{kind}"]]
    assert all(0 < share < 1 for share in shares)
    stopped, stops = deep.train_with_stops(spec, every=4)
    assert stops > 0
    weights, expected = everything(stopped), everything(whole)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_term_learns_is_as_wide_as_the_weights(deep: Lesson, kind: str) -> None:
    job = deep.train(deep.spec(**sections(kind), training={"precision": "float64", "epochs": 1}))
    learned = {parameter.dtype for parameter in job.keeper.trainings[Phase.DISTILLING].loss.parameters()}
    assert learned == ({torch.float64} if kind in LEARN else set())
