"""Contrastive distillation against its definition by loops; what it draws and remembers; in several processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from stillhouse.contract.failures import SingleClassError
from stillhouse.contract.spec import Crd, LayerPair, Objective
from worker.engine.objectives import Loss, Shapes, Views
from worker.engine.objectives.crd import Contrast, sum_of_softplus

PAIR = [LayerPair(student="narrow", teacher="wide")]
SAMPLES = 50
LABELS = torch.arange(SAMPLES) % 4
ROOT = Path(__file__).parents[3]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def contrast(*, num_negatives: int = 24, labels: Tensor = LABELS, seed: int = 0) -> Contrast:
    torch.manual_seed(seed)
    made = Contrast(
        (3, 2, 2), (5,), labels, feat_dim=6, num_negatives=num_negatives, temperature=0.3, momentum=0.75
    )
    return made.double()


def unit(vector: Any) -> Any:  # noqa: ANN401 - arrays of NumPy
    return vector / math.sqrt(sum(vector**2))


def by_hand(made: Contrast, student: Tensor, teacher: Tensor, ids: list[int], scales: tuple[float, float]) -> float:
    """Equation (18) and the estimator of the paper, item by item: -log h(positive) - sum of log(1 - h(negative))."""
    state = {name: value.numpy() for name, value in made.state_dict().items()}
    negatives = made.draw_negatives().tolist()
    labels = made.labels.tolist()
    sides = (
        (student.numpy(), "student_embedding", state["teacher_memory"], scales[0]),
        (teacher.numpy(), "teacher_embedding", state["student_memory"], scales[1]),
    )
    total, counted = 0.0, 0
    for place, sample in enumerate(ids):
        if labels[sample] < 0:
            continue
        counted += 1
        others = [other for other in negatives if labels[other] != labels[sample]]
        for features, name, memory, scale in sides:
            anchor = unit(state[f"{name}.weight"] @ features[place] + state[f"{name}.bias"])
            # Noise is uniform over the n samples, and the model's probability is e / (n z).
            for other, is_positive in [(sample, True), *((other, False) for other in others)]:
                probability = math.exp(anchor @ memory[other] / 0.3) / (SAMPLES * scale)
                h = probability / (probability + len(others) / SAMPLES)
                total -= math.log(h if is_positive else 1 - h)
    return total / max(counted, 1)


def mean_e(made: Contrast, student: Tensor, teacher: Tensor) -> tuple[float, float]:
    """Mean of e over the items and the negatives that are drawn, for either side's anchors."""
    negatives = made.draw_negatives()
    state = made.state_dict()
    found = []
    for features, name, memory in (
        (student, "student_embedding", "teacher_memory"), (teacher, "teacher_embedding", "student_memory")
    ):
        anchors = features @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        anchors = torch.stack([anchor / anchor.norm() for anchor in anchors])
        found.append(float((anchors @ state[memory][negatives].T / 0.3).exp().mean()))
    return found[0], found[1]


@pytest.mark.parametrize("ids", [[3, 17, 42, 8], [11]], ids=str)
def test_the_loss_is_that_of_the_paper_over_the_samples_it_draws(ids: list[int]) -> None:
    made, items = contrast(), len(ids)
    student, teacher = noise(items, 3), noise(items, 5, seed=1)
    scales = mean_e(made, student, teacher)
    first = by_hand(made, student, teacher, ids, scales)
    assert float(made(student, teacher, torch.tensor(ids)).detach()) == pytest.approx(first, rel=1e-10)
    # The scale is that of the first call; the draws and the memory are those of the second.
    student, teacher = noise(items, 3, seed=2), noise(items, 5, seed=3)
    second = by_hand(made, student, teacher, ids, scales)
    assert float(made(student, teacher, torch.tensor(ids)).detach()) == pytest.approx(second, rel=1e-10)
    assert mean_e(made, student, teacher) != pytest.approx(scales)


def test_the_memory_keeps_a_share_of_what_it_knew_at_length_1() -> None:
    made, ids = contrast(), [3, 17, 42, 8]
    student, teacher = noise(4, 3), noise(4, 5, seed=1)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(student, teacher, torch.tensor(ids))
    after = made.state_dict()
    for side, features in (("student", student), ("teacher", teacher)):
        memory = f"{side}_memory"
        for place, sample in enumerate(ids):
            weight, bias = before[f"{side}_embedding.weight"].numpy(), before[f"{side}_embedding.bias"].numpy()
            seen = unit(weight @ features[place].numpy() + bias)
            expected = unit(0.75 * before[memory][sample].numpy() + 0.25 * seen)
            assert after[memory][sample].tolist() == pytest.approx(expected.tolist())
        others = [sample for sample in range(SAMPLES) if sample not in ids]
        assert torch.equal(after[memory][others], before[memory][others])
        assert after[memory].norm(dim=1).tolist() == pytest.approx([1.0] * SAMPLES)


def test_unlabelled_samples_are_neither_asked_about_nor_compared_with() -> None:
    labels = torch.where(torch.arange(SAMPLES) % 3 == 0, -1, LABELS)
    made = contrast(labels=labels, num_negatives=200)
    assert set(made.draw_negatives().tolist()) <= set((labels >= 0).nonzero()[:, 0].tolist())
    assert len(made.draw_negatives()) == int((labels >= 0).sum())
    ids = [3, 17, 42, 8]  # two of them have no label
    student, teacher = noise(4, 3).requires_grad_(), noise(4, 5, seed=1)
    expected = by_hand(made, student.detach(), teacher, ids, mean_e(made, student.detach(), teacher))
    value = made(student, teacher, torch.tensor(ids))
    value.backward()
    assert float(value.detach()) == pytest.approx(expected, rel=1e-10)
    assert student.grad is not None
    assert [bool(row.any()) for row in student.grad] == [False, True, False, True]


def test_a_batch_without_labels_is_no_loss() -> None:
    made = contrast(labels=torch.where(torch.arange(SAMPLES) < 10, -1, LABELS))
    student = noise(2, 3).requires_grad_()
    value = made(student, noise(2, 5), torch.tensor([1, 2]))
    value.backward()
    assert value.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_samples_of_an_items_own_class_do_not_count() -> None:
    one, other = contrast(), contrast()
    others = LABELS[3] != LABELS
    with torch.no_grad():
        other.student_memory[~others] = -other.student_memory[~others]
        other.teacher_memory[~others] = -other.teacher_memory[~others]
        for made in (one, other):
            made.student_memory[3] = made.teacher_memory[3] = 0.5
            made.calls.fill_(1)  # the scale is known
    values = [float(made(noise(1, 3), noise(1, 5), torch.tensor([3])).detach()) for made in (one, other)]
    assert values[0] == values[1]


def test_draws_are_a_function_of_seed_and_number_of_the_call() -> None:
    made, again, other = contrast(), contrast(), contrast(seed=1)
    first = made.draw_negatives()
    assert torch.equal(first, made.draw_negatives())
    torch.rand(100)  # another's draws change nothing
    assert torch.equal(first, again.draw_negatives())
    assert not torch.equal(first, other.draw_negatives())
    made(noise(1, 3), noise(1, 5), torch.tensor([3]))
    second = made.draw_negatives()
    assert not torch.equal(first, second)
    again.load_state_dict(made.state_dict())
    assert torch.equal(second, again.draw_negatives())


def test_every_sample_is_drawn_as_often_as_any_other() -> None:
    made = contrast(num_negatives=50)
    counts = torch.zeros(SAMPLES)
    for call in range(1000):
        made.calls.fill_(call)
        counts += torch.bincount(made.draw_negatives(), minlength=SAMPLES)
    # 1000 expected of each, with a deviation of about 31: this is the 0.9999 quantile of chi squared with 49 degrees.
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 99


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_many_logarithms_at_once_are_as_good_as_each_alone(width: int, dtype: torch.dtype, rel: float) -> None:
    values = torch.cat([noise(3, width) * scale for scale in (1e-3, 1, 30, 1e4)]).to(dtype).requires_grad_()
    found = sum_of_softplus(values)
    expected = torch.logaddexp(values.double(), torch.zeros((), dtype=torch.float64)).sum(1)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=rel, abs=1e-30)
    weights = torch.arange(12.0, dtype=dtype)
    (slope,) = torch.autograd.grad(found, values, weights)
    assert torch.allclose(slope, weights[:, None] * values.sigmoid(), rtol=rel, atol=0)
    assert sum_of_softplus(torch.full((1, width), -math.inf)).item() == 0


def loss_of(labels: Tensor | None = LABELS) -> Loss:
    shapes = Shapes({"narrow": (3, 2, 2)}, {"wide": (5,)}, 3, SAMPLES, labels)
    return Loss(Objective(terms=[Crd(pairs=PAIR, feat_dim=6, num_negatives=24)]), shapes).double()


def test_evaluation_moves_nothing_and_says_nothing() -> None:
    loss = loss_of()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    outputs = noise(4, 3).requires_grad_()
    views = Views(
        outputs, outputs, features={"narrow": noise(4, 3, 2, 2)}, teacher_features={"wide": noise(4, 5)}
    )
    value = loss.eval()(views)[1]
    value.backward()
    assert value.item() == 0
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_the_labels_of_the_data_are_not_in_the_checkpoint() -> None:
    names = {name.rsplit(".", maxsplit=1)[-1] for name in loss_of().state_dict()}
    assert names == {
        "weight", "bias", "seed", "calls", "log_scales", "student_memory", "teacher_memory"
    }


def test_one_class_has_no_others() -> None:
    with pytest.raises(SingleClassError, match="crd has no samples of other classes") as refused:
        loss_of(torch.where(torch.arange(SAMPLES) < 5, -1, 2))
    assert refused.value.param == "/objective/terms/0"


def two_steps(rank: int = 0, size: int = 1) -> tuple[float, dict[str, Any]]:
    """The last loss over the items of all ranks, and the state afterwards, of a rank that sees its share of them."""
    made, ids = contrast(), torch.tensor([3, 17, 42, 8])
    value = torch.zeros(())
    for step in range(2):
        batch = (noise(4, 3, seed=step), noise(4, 5, seed=9 + step), ids + step)
        value = made(*(part.chunk(size)[rank] for part in batch)).detach()
    if size > 1:
        dist.all_reduce(value)
    return float(value) / size, {name: tensor.tolist() for name, tensor in made.state_dict().items()}


OTHER_RANK = """
import json, sys
import torch.distributed as dist
from tests.unit.engine.test_crd import two_steps

dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
print(json.dumps(two_steps(1, 2)))
"""


def test_several_processes_remember_and_lose_what_one_would(tmp_path: Path) -> None:
    loss, state = two_steps()
    store = f"file://{tmp_path}/store"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_RANK, store], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as other:
        dist.init_process_group("gloo", init_method=store, rank=0, world_size=2)
        try:
            ranks = [two_steps(0, 2), json.loads(other.communicate(timeout=120)[0])]
        finally:
            dist.destroy_process_group()
    for loss_together, state_together in ranks:
        assert loss_together == pytest.approx(loss, rel=1e-12)
        for name, values in state.items():
            assert np.asarray(state_together[name]) == pytest.approx(np.asarray(values), rel=1e-12), name
