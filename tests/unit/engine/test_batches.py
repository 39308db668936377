import pytest
import torch

from worker.engine.data import Batches


def test_batches_are_a_function_of_seed_and_step() -> None:
    ids = torch.arange(100, 150)
    forwards, backwards = (Batches(ids, batch_size=8, seed=3) for _ in range(2))
    steps = range(20)
    expected = {step: forwards(step) for step in steps}
    for step in reversed(steps):
        assert torch.equal(backwards(step), expected[step])
    other = Batches(ids, batch_size=8, seed=4)
    assert not torch.equal(other(0), expected[0])


def test_an_epoch_shows_each_sample_at_most_once_and_leaves_out_others_each_time() -> None:
    batches = Batches(torch.arange(50), batch_size=8, seed=0)
    assert batches.steps_per_epoch == 6
    epochs = [torch.cat([batches(step) for step in range(6 * epoch, 6 * epoch + 6)]) for epoch in range(3)]
    for seen in epochs:
        assert len(seen.unique()) == 48
    left_out = [set(range(50)) - set(seen.tolist()) for seen in epochs]
    assert left_out[0] != left_out[1]
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (5, 0), (6, 1), (17, 2)])
def test_a_step_knows_its_epoch(step: int, epoch: int) -> None:
    assert Batches(torch.arange(50), batch_size=8, seed=0).epoch(step) == epoch


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    batches = Batches(torch.arange(5), batch_size=128, seed=0)
    assert (batches.batch_size, batches.steps_per_epoch) == (5, 1)
    assert sorted(batches(9).tolist()) == list(range(5))


def drawn(batches: Batches, epoch: int) -> torch.Tensor:
    return torch.cat([batches(epoch * batches.steps_per_epoch + place) for place in range(batches.steps_per_epoch)])


CLASSES = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)


def test_balanced_batches_draw_every_class_equally_often() -> None:
    ids = torch.arange(1000, 1100)
    batches = Batches(ids, batch_size=10, seed=0, classes=CLASSES)
    assert batches.steps_per_epoch == 10
    epochs = [drawn(batches, epoch) - 1000 for epoch in range(4)]
    for places in epochs:
        assert sorted(torch.bincount(CLASSES[places]).tolist()) == [33, 33, 34]
        times = torch.bincount(places, minlength=100)
        assert set(times[:70].tolist()) == {0, 1}  # of the frequent class some are left out
        for first, last in ((70, 95), (95, 100)):  # of a rare one all come, none more than once more than another
            assert int(times[first:last].max() - times[first:last].min()) <= 1
    left_out = [set(range(70)) - set(places.tolist()) for places in epochs]
    assert left_out[0] != left_out[1]
    more = {int(torch.bincount(CLASSES[places]).argmax()) for places in epochs}
    assert len(more) > 1  # the draw that is left over goes to another class each time
    order = CLASSES[epochs[0]].tolist()
    assert order != sorted(order)


def test_balanced_batches_are_a_function_of_seed_and_step() -> None:
    forwards, backwards = (
        Batches(torch.arange(100), batch_size=8, seed=3, classes=CLASSES) for _ in range(2)
    )
    expected = {step: forwards(step) for step in range(40)}
    for step in reversed(range(40)):
        assert torch.equal(backwards(step), expected[step])
    assert not torch.equal(Batches(torch.arange(100), batch_size=8, seed=4, classes=CLASSES)(0), expected[0])


def test_samples_without_a_label_are_drawn_once_beside_the_balanced_ones() -> None:
    classes = torch.tensor([-1] * 40 + [0] * 50 + [1] * 10)
    places = drawn(Batches(torch.arange(100), batch_size=100, seed=0, classes=classes), 0)
    times = torch.bincount(places, minlength=100)
    assert times[:40].tolist() == [1] * 40
    assert torch.bincount(classes[places] + 1).tolist() == [40, 30, 30]
    unlabelled = Batches(torch.arange(9), batch_size=9, seed=0, classes=torch.full((9,), -1))
    assert sorted(unlabelled(0).tolist()) == list(range(9))


def test_looking_ahead_over_the_end_of_an_epoch_shuffles_no_epoch_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled: list[int] = []
    shuffle = Batches._shuffle  # noqa: SLF001 - to count

    def counted(self: Batches, epoch: int) -> tuple[torch.Tensor, ...]:
        shuffled.append(epoch)
        return shuffle(self, epoch)

    monkeypatch.setattr(Batches, "_shuffle", counted)
    batches = Batches(torch.arange(50), batch_size=10, seed=0)
    for step in range(20):
        batches(step + 2)
        batches(step)
    assert shuffled == [0, 1, 2, 3, 4]
