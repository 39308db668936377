"""Each task's scores against scikit-learn or a formula written independently."""

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from sklearn import metrics
from torch import Tensor

from stillhouse.contract.spec import Classification, Embedding, MultiLabel, Regression
from worker.engine.tasks import Answered, embedding, task_of
from worker.engine.tasks.embedding import rank_correlation, shared_neighbours, similarities
from worker.engine.tasks.multi_label import average_precisions
from worker.engine.tasks.regression import mean_r2, r2_by_target

Array = npt.NDArray[np.float64]
NAMES = ["cat", "dog", "cow", "ant"]


def draws(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def sigmoid(values: Tensor) -> Array:
    found: Array = 1 / (1 + np.exp(-values.double().numpy()))
    return found


# multi_label


def labelled_rows(count: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels that follow them with some noise."""
    logits = 2 * draws(seed, count, width)
    return logits, (logits + 2 * draws(seed + 1, count, width) > 0.5).float()


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_multi_label_scores_are_scikit_learns(threshold: float) -> None:
    logits, labels = labelled_rows(60, 4)
    found = task_of(MultiLabel(threshold=threshold)).score(Answered(logits, labels), NAMES)
    truth, held = labels.numpy(), sigmoid(logits) >= threshold
    assert found.average_precision == pytest.approx(
        metrics.average_precision_score(truth, sigmoid(logits), average="macro"), rel=1e-5
    )
    assert found.f1_micro == pytest.approx(metrics.f1_score(truth, held, average="micro"), rel=1e-5)
    assert found.f1_macro == pytest.approx(metrics.f1_score(truth, held, average="macro"), rel=1e-5)
    assert found.precision_macro == pytest.approx(metrics.precision_score(truth, held, average="macro"), rel=1e-5)
    assert found.recall_macro == pytest.approx(metrics.recall_score(truth, held, average="macro"), rel=1e-5)
    assert found.exact_match == pytest.approx(metrics.accuracy_score(truth, held))
    assert found.num_errors == round(60 * (1 - metrics.accuracy_score(truth, held)))
    own = sigmoid(logits)
    losses = -(truth * np.log(own) + (1 - truth) * np.log(1 - own))
    assert found.cross_entropy == pytest.approx(float(losses.sum(axis=1).mean()), rel=1e-6)
    assert (found.accuracy, found.agreement, found.confusion) == (None, None, [])


def test_each_label_is_scored_like_scikit_learn_does() -> None:
    logits, labels = labelled_rows(60, 4, seed=5)
    found = task_of(MultiLabel()).score(Answered(logits, labels), NAMES).per_class
    truth, held = labels.numpy(), logits.numpy() >= 0
    precisions, recalls, f1, support = metrics.precision_recall_fscore_support(truth, held)
    assert [score.label for score in found] == NAMES
    assert [score.support for score in found] == support.tolist()
    for field, expected in (("precision", precisions), ("recall", recalls), ("f1", f1)):
        assert [getattr(score, field) for score in found] == pytest.approx(expected, rel=1e-5)
    assert [score.average_precision for score in found] == pytest.approx(
        metrics.average_precision_score(truth, sigmoid(logits), average=None), rel=1e-5
    )


def test_equal_scores_share_their_place_in_the_ranking() -> None:
    logits = torch.tensor([[1.0], [0.0], [0.0], [-1.0], [0.0]])
    labels = torch.tensor([[0.0], [1.0], [0.0], [1.0], [0.0]])
    expected = metrics.average_precision_score(labels.numpy().ravel(), logits.numpy().ravel())
    assert average_precisions(logits, labels) == pytest.approx([expected])


def test_a_label_that_no_sample_has_is_left_out_of_the_mean_without_a_warning() -> None:
    logits, labels = labelled_rows(40, 4)
    labels[:, 2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = task_of(MultiLabel()).score(Answered(logits, labels), NAMES)
    kept = [0, 1, 3]
    assert found.average_precision == pytest.approx(
        metrics.average_precision_score(labels[:, kept].numpy(), sigmoid(logits[:, kept])), rel=1e-5
    )
    assert found.per_class[2].average_precision is None
    assert task_of(MultiLabel()).score(Answered(logits, torch.zeros(40, 4)), NAMES).average_precision is None


def test_one_label_alone_is_scored_too() -> None:
    logits, labels = labelled_rows(40, 1)
    found = task_of(MultiLabel()).score(Answered(logits, labels), ["ill"])
    assert found.f1_micro == pytest.approx(metrics.f1_score(labels.numpy(), logits.numpy() >= 0), rel=1e-5)
    assert found.f1_macro == found.f1_micro


def test_how_alike_multi_label_models_decide_and_how_far_apart_they_are() -> None:
    logits, teacher = draws(0, 30, 4), 2 * draws(1, 30, 4)
    found = task_of(MultiLabel(threshold=0.7)).score(Answered(logits, teacher=teacher), NAMES)
    q, p = sigmoid(logits), sigmoid(teacher)
    assert found.agreement == pytest.approx(((q >= 0.7) == (p >= 0.7)).mean())
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found.kl_from_teacher == pytest.approx(float(divergence.sum(axis=1).mean()), rel=1e-6)
    assert (found.average_precision, found.exact_match, found.per_class) == (None, None, [])


# regression


def test_regression_scores_are_scikit_learns() -> None:
    outputs, targets = draws(0, 50, 3), 5 * draws(1, 50, 3) + 100
    outputs = targets + outputs
    found = task_of(Regression()).score(Answered(outputs, targets), NAMES[:3])
    assert found.r2 == pytest.approx(metrics.r2_score(targets, outputs), rel=1e-6)
    assert found.mae == pytest.approx(metrics.mean_absolute_error(targets, outputs), rel=1e-6)
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(targets, outputs), rel=1e-6)
    by_target = metrics.r2_score(targets, outputs, multioutput="raw_values")
    assert [score.r2 for score in found.per_target] == pytest.approx(by_target, rel=1e-6)
    errors = metrics.root_mean_squared_error(targets, outputs, multioutput="raw_values")
    assert [score.rmse for score in found.per_target] == pytest.approx(errors, rel=1e-6)
    assert [score.target for score in found.per_target] == NAMES[:3]
    assert (found.agreement, found.mse_from_teacher) == (None, None)


def test_a_target_of_a_small_unit_is_scored_like_any_other() -> None:
    """Where torchmetrics would say 1, taking a small variance for none."""
    targets = 1e-4 * draws(0, 20, 1)
    outputs = targets + 1e-4 * draws(1, 20, 1)
    assert r2_by_target(outputs, targets) == pytest.approx([metrics.r2_score(targets, outputs)], rel=1e-6)
    assert mean_r2(outputs, targets) < 0.9


def test_a_target_far_from_zero_is_scored_like_any_other() -> None:
    targets = 1e6 + draws(0, 200, 1)
    outputs = targets + 0.5 * draws(1, 200, 1)
    expected = metrics.r2_score(targets.double().numpy(), outputs.double().numpy())
    assert mean_r2(outputs, targets) == pytest.approx(expected, rel=1e-9)


def test_a_target_that_never_varies_is_left_out_of_the_mean() -> None:
    targets, outputs = draws(0, 20, 3), draws(1, 20, 3)
    targets[:, 1] = 4
    found = task_of(Regression()).score(Answered(outputs, targets), NAMES[:3])
    assert found.per_target[1].r2 is None
    kept = [0, 2]
    assert found.r2 == pytest.approx(metrics.r2_score(targets[:, kept], outputs[:, kept]), rel=1e-6)
    alone = task_of(Regression()).score(Answered(outputs[:1], targets[:1]), NAMES[:3])
    assert alone.r2 is None
    assert alone.mae == pytest.approx(float((outputs[:1] - targets[:1]).abs().mean()))


def test_where_nothing_varies_only_the_exact_answer_counts() -> None:
    same = torch.full((5, 2), 3.0)
    assert mean_r2(same, same) == 1
    assert mean_r2(same + 0.1, same) == 0


def test_how_alike_regressions_answer() -> None:
    outputs, teacher = draws(0, 20, 2), draws(1, 20, 2)
    found = task_of(Regression()).score(Answered(outputs, teacher=teacher), NAMES[:2])
    assert found.agreement == pytest.approx(metrics.r2_score(teacher, outputs), rel=1e-6)
    assert found.mse_from_teacher == pytest.approx(metrics.mean_squared_error(teacher, outputs), rel=1e-6)
    assert (found.r2, found.per_target) == (None, [])


# embedding


def test_embedding_scores_are_those_of_scikit_learn_and_scipy() -> None:
    vectors, teacher = draws(0, 40, 6), draws(1, 40, 6)
    teacher = vectors + 0.5 * teacher
    found = task_of(Embedding()).score(Answered(vectors, teacher=teacher), [])
    own, taught = metrics.pairwise.cosine_similarity(vectors), metrics.pairwise.cosine_similarity(teacher)
    crossed = metrics.pairwise.cosine_similarity(vectors, teacher)
    assert found.cosine == pytest.approx(float(np.diag(crossed).mean()), rel=1e-6)
    assert found.mse_from_teacher == pytest.approx(metrics.mean_squared_error(teacher, vectors), rel=1e-6)
    above = np.triu_indices(40, 1)
    assert found.similarity_correlation == pytest.approx(stats.spearmanr(own[above], taught[above]).statistic, rel=1e-5)
    shared = [
        len(set(nearest(own, place)) & set(nearest(taught, place))) / 10 for place in range(40)
    ]
    assert found.agreement == pytest.approx(np.mean(shared))


def nearest(matrix: npt.NDArray[np.float32], place: int) -> list[int]:
    order = sorted((other for other in range(len(matrix)) if other != place), key=lambda other: -matrix[place, other])
    return order[:10]


def test_the_length_of_vectors_does_not_matter_to_their_neighbours() -> None:
    vectors = draws(0, 30, 5)
    stretched = vectors * torch.linspace(1, 9, 30)[:, None]
    found = task_of(Embedding()).score(Answered(stretched, teacher=vectors), [])
    assert (found.cosine, found.agreement) == pytest.approx((1, 1))
    assert found.similarity_correlation == pytest.approx(1)
    assert found.mse_from_teacher is not None
    assert found.mse_from_teacher > 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_have_few_neighbours(count: int) -> None:
    vectors = draws(0, count, 5)
    assert task_of(Embedding()).validate(Answered(vectors, teacher=vectors)) == pytest.approx(
        {"cosine": 1, "agreement": 1}
    )
    correlation = task_of(Embedding()).score(Answered(vectors, teacher=vectors), []).similarity_correlation
    assert correlation == (pytest.approx(1) if count == 3 else None)  # two samples have one pair, and no order


def test_many_samples_are_compared_by_a_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_COMPARED", 5)
    vectors = draws(0, 17, 3)
    assert torch.equal(similarities(vectors), similarities(vectors[[0, 4, 8, 12, 16]]))
    assert shared_neighbours(similarities(vectors), similarities(-vectors)) == 1  # every other of five is a neighbour


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0, 2.0, 5.0], [1.0, 1.0, 1.0, 2.0, 2.0], [0.1, 0.2, 0.3, 0.4, -1.0]])
def test_ranks_are_shared_by_equal_values(values: list[float]) -> None:
    others = [2.0, 2.0, 1.0, 4.0, 3.0]
    expected = stats.spearmanr(values, others).statistic
    assert rank_correlation(torch.tensor(values), torch.tensor(others)) == pytest.approx(expected)


def test_what_is_all_the_same_has_no_rank_correlation() -> None:
    assert rank_correlation(torch.ones(4), torch.arange(4.0)) is None


# all of them


@pytest.mark.parametrize("section", [Classification(), MultiLabel(), Regression()])
def test_samples_without_a_label_count_for_nothing_but_agreement(
    section: Classification | MultiLabel | Regression
) -> None:
    outputs, teacher = draws(0, 30, 4), draws(1, 30, 4)
    mask = torch.arange(30) % 3 == 0
    if isinstance(section, Classification):
        labels = outputs.argmax(1).roll(1)
        broken = torch.where(mask, labels, -100)
    else:
        labels = (outputs + draws(2, 30, 4) > 0).float()
        broken = torch.where(mask[:, None], labels, torch.nan)
    task = task_of(section)
    found = task.score(Answered(outputs, broken, mask, teacher), NAMES)
    known = task.score(Answered(outputs[mask], labels[mask]), NAMES)
    beside = task.score(Answered(outputs, teacher=teacher), NAMES)
    assert found.agreement == beside.agreement
    unlike = {"agreement", "kl_from_teacher", "mse_from_teacher"}
    assert found.model_dump(exclude=unlike) == known.model_dump(exclude=unlike)
    assert task.validate(Answered(outputs, broken, mask))[task.quality] == pytest.approx(getattr(known, task.quality))
    nobody = torch.zeros(30, dtype=torch.bool)
    assert task.validate(Answered(outputs, broken, nobody, teacher)).keys() == {"agreement"}
    assert getattr(task.score(Answered(outputs, broken, nobody), NAMES), task.quality) is None


@pytest.mark.parametrize("section", [Classification(), MultiLabel(), Regression(), Embedding()])
def test_what_selects_is_what_the_report_tells(
    section: Classification | MultiLabel | Regression | Embedding
) -> None:
    outputs, teacher = draws(0, 30, 4), draws(1, 30, 4)
    labels = {
        "classification": torch.arange(30) % 4, "multi_label": (draws(2, 30, 4) > 0).float(),
        "regression": draws(2, 30, 4), "embedding": None,
    }[section.kind]
    task = task_of(section)
    answered = Answered(outputs, labels, teacher=teacher)
    told = task.score(answered, NAMES)
    assert task.validate(answered) == pytest.approx(
        {section.quality: getattr(told, section.quality), "agreement": told.agreement}
    )


@pytest.mark.parametrize("section", [Classification(), MultiLabel(), Regression(), Embedding()])
def test_an_ensemble_speaks_with_one_voice(section: Classification | MultiLabel | Regression | Embedding) -> None:
    members, shares = draws(0, 12, 2, 4).double(), torch.tensor([3.0, 1.0])
    joint = task_of(section).consensus(members, shares)
    weights = np.array([0.75, 0.25])[:, None]
    values = members.numpy()
    if isinstance(section, Classification):
        mean = (weights * np.exp(values) / np.exp(values).sum(axis=2, keepdims=True)).sum(axis=1)
        np.testing.assert_allclose(joint.softmax(1), mean)
    elif isinstance(section, MultiLabel):
        np.testing.assert_allclose(sigmoid(joint), (weights / (1 + np.exp(-values))).sum(axis=1))
    else:
        np.testing.assert_allclose(joint, (weights * values).sum(axis=1))
