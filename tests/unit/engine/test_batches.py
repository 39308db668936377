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
