import numpy as np
import pytest
import torch

from worker.engine import evaluate
from worker.engine.evaluate import score

NAMES = ["cat", "dog", "cow"]
# True classes: 0 0 0 1 1 2; answers: 0 0 1 1 1 0
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
ANSWERS = torch.tensor([0, 0, 1, 1, 1, 0])
LOGITS = 4.0 * torch.nn.functional.one_hot(ANSWERS, 3)
TEACHER = 4.0 * torch.nn.functional.one_hot(LABELS, 3)


def test_scores_are_those_worked_out_by_hand() -> None:
    found = score(LOGITS, labels=LABELS, teacher=TEACHER, label_names=NAMES)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.num_errors == 2
    precisions, recalls = [2 / 3, 2 / 3, 0], [2 / 3, 1, 0]
    f1 = [2 / 3, 4 / 5, 0]
    assert found.precision_macro == pytest.approx(np.mean(precisions))
    assert found.recall_macro == pytest.approx(np.mean(recalls))
    assert found.f1_macro == pytest.approx(np.mean(f1))
    assert [(part.label, part.support) for part in found.per_class] == [("cat", 3), ("dog", 2), ("cow", 1)]
    assert [part.recall for part in found.per_class] == pytest.approx(recalls)
    assert [part.precision for part in found.per_class] == pytest.approx(precisions)
    assert found.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]  # row: true class


def test_probabilities_are_scored_as_defined() -> None:
    found = score(LOGITS, labels=LABELS, teacher=TEACHER, label_names=NAMES)
    sure = np.exp(4) / (np.exp(4) + 2)
    unsure = (1 - sure) / 2
    assert found.cross_entropy == pytest.approx(-(4 * np.log(sure) + 2 * np.log(unsure)) / 6, rel=1e-6)
    assert found.calibration_error == pytest.approx(sure - 4 / 6, rel=1e-5)  # one bin holds all
    assert found.agreement == pytest.approx(4 / 6)
    assert found.kl_from_teacher == pytest.approx(2 / 6 * (sure - unsure) * 4, rel=1e-6)


def test_without_labels_agreement_is_all_there_is() -> None:
    found = score(LOGITS, labels=None, teacher=TEACHER, label_names=NAMES)
    assert found.agreement == pytest.approx(4 / 6)
    assert found.accuracy is None
    assert found.per_class == []


def test_without_a_teacher_accuracy_is_all_there_is() -> None:
    found = score(LOGITS, labels=LABELS, teacher=None, label_names=NAMES)
    assert (found.agreement, found.kl_from_teacher) == (None, None)
    assert found.num_errors == 2


def test_many_classes_are_not_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_DETAILED_CLASSES", 2)
    found = score(LOGITS, labels=LABELS, teacher=None, label_names=NAMES)
    assert (found.per_class, found.confusion) == ([], [])
    assert found.accuracy is not None
