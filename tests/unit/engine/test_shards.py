"""What a shard's file gives back is what the teacher said, within the bounds that its docs state; or nothing."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from tests.fixtures.labels import KEY
from worker.engine import answers as answers_module
from worker.engine.answers import MappedAnswers, StoredAnswers, stored
from worker.engine.softlabels.keys import Form
from worker.engine.softlabels.shards import Rows, hold, join, read_shard, write_shard

FINITE = st.floats(-1e4, 1e4, width=32)
LOGITS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8), elements=FINITE
).map(torch.from_numpy)


def bound(exact: Tensor) -> Tensor:
    """Largest error of a stored entry, as worker/engine/softlabels/shards.py states it; in float64."""
    exact = exact.double()
    below = exact.amax(dim=-1, keepdim=True) - exact
    largest = exact.abs().amax(dim=-1, keepdim=True)
    tiny = torch.where(below < 6.2e-5, 2.0**-25, 0.0)
    return 2.0**-11 * below + 2.0**-24 * (below + 2 * largest) + tiny


@given(LOGITS)
def test_logits_come_back_within_the_stated_bound_and_the_largest_exactly(exact: Tensor) -> None:
    found = hold(exact, "narrow").widen()
    assert found.dtype == torch.float32
    assert bool(((found.double() - exact.double()).abs() <= bound(exact)).all())
    assert torch.equal(found.amax(dim=-1), exact.amax(dim=-1))


@given(LOGITS)
def test_exact_rows_come_back_as_they_were(exact: Tensor) -> None:
    assert torch.equal(hold(exact, "exact").widen(), exact)


def test_the_bound_is_not_idle() -> None:
    torch.manual_seed(0)
    exact = torch.randn(1000, 10) * 10
    error = (hold(exact, "narrow").widen() - exact).abs().double()
    assert 0.5 < float((error / bound(exact).clamp(min=1e-12)).max()) <= 1


def test_what_lies_too_far_below_is_held_at_the_lowest_and_stays_finite() -> None:
    found = hold(torch.tensor([[0.0, -1e5, -3e38]]), "narrow").widen()
    assert found.tolist() == [[0.0, -65504.0, -65504.0]]


def test_logarithms_of_probabilities_keep_the_small_ones() -> None:
    probabilities = torch.tensor([[0.9, 0.1 - 1e-7, 1e-7]], dtype=torch.float64)
    found = hold(probabilities.log().float(), "narrow").widen().double().softmax(1)
    assert torch.allclose(found, probabilities, rtol=1e-2, atol=0)


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
@pytest.mark.parametrize("form", ["narrow", "exact"])
def test_a_file_gives_back_what_was_held(tmp_path: Path, shape: tuple[int, ...], form: Form) -> None:
    torch.manual_seed(0)
    key = replace(KEY, form=form)
    rows = hold(torch.randn(shape), key.form)
    path = write_shard(tmp_path, rows, key)
    assert path.name == f"{key.digest}.safetensors"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    found = read_shard(path, key, 5)
    assert found is not None
    assert torch.equal(found.widen(), rows.widen())
    assert (found.held.dtype, found.shape) == (rows.held.dtype, rows.shape)


def test_rows_are_mapped_not_read(tmp_path: Path) -> None:
    rows = hold(torch.zeros(4, 4096), "narrow")
    path = write_shard(tmp_path, rows, KEY)
    found = read_shard(path, KEY, 4)
    assert found is not None
    mapped = re.findall(r"^(\w+)-(\w+) .*" + re.escape(str(path)), Path("/proc/self/maps").read_text(), re.MULTILINE)
    assert any(int(begin, 16) <= found.held.data_ptr() < int(end, 16) for begin, end in mapped)


def test_a_file_cut_off_at_any_byte_is_no_shard(tmp_path: Path) -> None:
    path = write_shard(tmp_path, hold(torch.randn(3, 4), "narrow"), KEY)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert read_shard(path, KEY, 3) is None, size
    path.write_bytes(whole + b"\0")
    assert read_shard(path, KEY, 3) is None
    path.write_bytes(whole)
    assert read_shard(path, KEY, 3) is not None


def test_a_file_that_is_another_shards_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path, hold(torch.randn(3, 4), "narrow"), KEY)
    assert read_shard(path, replace(KEY, owner="bob"), 3) is None
    assert read_shard(path, replace(KEY, view=1), 3) is None
    assert read_shard(path, KEY, 4) is None
    assert read_shard(path.with_name("nothing"), KEY, 3) is None
    exact = write_shard(tmp_path, hold(torch.randn(3, 4), "exact"), KEY)  # a key that says narrow
    assert read_shard(exact, KEY, 3) is None


def test_a_killed_writer_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, hold(torch.randn(3, 4), "narrow"), KEY)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]


def views_of(num_views: int, sizes: list[int], shape: tuple[int, ...] = (3,)) -> list[list[Rows]]:
    torch.manual_seed(0)
    return [[hold(torch.randn(size, *shape) * 9, "narrow") for size in sizes] for _ in range(num_views)]


@given(st.lists(st.integers(0, 19), min_size=1, max_size=30), st.integers(0, 1), st.sampled_from([(3,), (2, 3)]))
def test_mapped_and_ready_answers_are_the_same_rows(places: list[int], view: int, shape: tuple[int, ...]) -> None:
    ids = torch.arange(20) * 2 + 1  # of a file of 50 samples
    views = views_of(2, [8, 8, 4], shape)
    asked = ids[torch.tensor(places)]
    expected = join(views[view]).widen()[torch.tensor(places)]
    ready = stored(views, ids, 50, "cpu")
    mapped = MappedAnswers(views, torch.zeros(50, dtype=torch.int64).index_copy_(0, ids, torch.arange(20)), "cpu")
    for answers in (ready, mapped):
        assert torch.equal(answers(asked, view, _unused).outputs, expected)


def test_what_does_not_fit_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    views, ids = views_of(2, [8, 2]), torch.arange(10)
    assert isinstance(stored(views, ids, 10, "cpu"), StoredAnswers)
    monkeypatch.setattr(answers_module, "MAX_READY_BYTES", 2 * 10 * 3 * 4 - 1)
    assert isinstance(stored(views, ids, 10, "cpu"), MappedAnswers)


def _unused() -> Tensor:
    raise AssertionError("stored answers need no images")
