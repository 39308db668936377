import pytest
import torch

from stillhouse.contract.failures import SplitTooSmallError
from worker.engine.data.holdout import hold_out

LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 9 + [3])


def test_every_class_keeps_its_share_and_nothing_is_lost() -> None:
    train, held = hold_out(100, LABELS, fraction=0.2, seed=0)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(100))
    assert torch.bincount(LABELS[held], minlength=4).tolist() == [12, 6, 2, 0]
    assert held.tolist() == sorted(held.tolist())


def test_the_draw_is_random_within_a_class_and_fixed_by_its_seed() -> None:
    first, again, other = (hold_out(100, LABELS, fraction=0.2, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    held_of_class_0 = first[first < 60]
    assert held_of_class_0.tolist() not in (list(range(12)), list(range(48, 60)))


def test_unlabelled_samples_are_drawn_evenly() -> None:
    train, held = hold_out(10, None, fraction=0.3, seed=0)
    assert (len(train), len(held)) == (7, 3)


def test_rounding_keeps_the_whole_share() -> None:
    labels = torch.arange(10).repeat(5)  # 5 of each of 10 classes: a tenth of each is half a sample
    _, held = hold_out(50, labels, fraction=0.1, seed=0)
    assert len(held) == 5
    assert len(labels[held].unique()) == 5


def test_samples_without_a_label_keep_their_share_whatever_stands_in_it() -> None:
    mask = torch.arange(100) % 2 == 0
    garbage = torch.where(mask, LABELS, torch.arange(100) * 1000)
    _, held = hold_out(100, garbage, fraction=0.2, seed=0, mask=mask)
    assert len(held) == 20
    assert int((~mask[held]).sum()) == 10
    assert torch.bincount(LABELS[held][mask[held]], minlength=3)[:2].tolist() == [6, 3]


def test_labels_that_are_no_classes_keep_their_share_of_samples_that_have_one() -> None:
    mask = torch.arange(100) % 10 == 0
    _, held = hold_out(100, None, fraction=0.2, seed=0, mask=mask)
    assert int(mask[held].sum()) == 2


@pytest.mark.parametrize("labels", [None, torch.zeros(1, dtype=torch.int64)])
def test_too_few_samples_are_told(labels: torch.Tensor | None) -> None:
    with pytest.raises(SplitTooSmallError):
        hold_out(1, labels, fraction=0.5, seed=0)


def test_one_sample_of_each_class_is_too_few() -> None:
    with pytest.raises(SplitTooSmallError):
        hold_out(5, torch.arange(5), fraction=0.2, seed=0)


def test_samples_without_a_label_keep_their_share_together() -> None:
    labels = torch.where(torch.arange(100) < 40, 0, LABELS)
    mask = torch.arange(100) >= 40
    train, held = hold_out(100, labels, fraction=0.1, seed=0, mask=mask)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(100))
    assert int((~mask[held]).sum()) == 4
    assert torch.bincount(labels[held][mask[held]], minlength=4).tolist() == [2, 3, 1, 0]


def test_a_mask_of_all_changes_nothing() -> None:
    all_of_them = torch.ones(100, dtype=torch.bool)
    expected = hold_out(100, LABELS, fraction=0.2, seed=0)[1]
    assert torch.equal(hold_out(100, LABELS, fraction=0.2, seed=0, mask=all_of_them)[1], expected)


def test_a_sample_of_several_labels_counts_for_its_rarest() -> None:
    rows = torch.zeros(100, 3)
    rows[:, 0] = 1  # all have the first, some the second, few the third, and ten have none
    rows[:30, 1] = 1
    rows[:10, 2] = 1
    rows[90:] = 0
    _, held = hold_out(100, rows, fraction=0.2, seed=0)
    assert rows[held].sum(dim=0).tolist() == [18, 6, 2]
    assert int((held >= 90).sum()) == 2
    rows[:40, 1] = (torch.arange(40) % 2).float()
    rows[:10, 2], rows[40:, 1] = 1, 0
    for seed in range(5):  # 5 of the 10 rarest have the second label too, as 15 others have
        _, held = hold_out(100, rows, fraction=0.2, seed=seed)
        assert int((rows[held][:, 2] > 0).sum()) == 2
        assert int(((rows[held][:, 1] > 0) & (rows[held][:, 2] == 0)).sum()) == 3
