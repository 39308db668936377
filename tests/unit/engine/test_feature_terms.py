"""Terms on layers against published values, against loops written from the papers, and their own gradients."""

import math
import sys
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.contract.failures import IncompatibleLayersError, OutOfMemoryError
from stillhouse.contract.spec import (
    At,
    Cka,
    CosineDistance,
    Crd,
    Fitnet,
    LayerPair,
    Mse,
    Nst,
    Objective,
    Pkt,
    Review,
    Rkd,
    Sp,
    Term,
    Vid,
)
from worker.engine import memory
from worker.engine.features import shapes_of
from worker.engine.objectives import OBJECTIVES, Loss, Shapes, Views
from worker.engine.objectives.review import context_loss

# The inputs on which the reference implementations were run.
_PLACES = torch.arange(4 * 6 * 8 * 8, dtype=torch.float64).view(4, 6, 8, 8)
STUDENT, TEACHER = torch.sin(0.37 * _PLACES + 0.1), torch.sin(0.53 * _PLACES + 0.4)
PAIR = [LayerPair(student="narrow", teacher="wide")]
TWO_PAIRS = [*PAIR, LayerPair(student="narrow.deep", teacher="wide.deep")]

Array = np.ndarray[Any, np.dtype[np.float64]]


def views_of(student: Tensor, teacher: Tensor, *, ids: Tensor | None = None) -> Views:
    outputs = torch.zeros(len(student), 3, dtype=student.dtype)
    return Views(outputs, outputs, ids=ids, features={"narrow": student}, teacher_features={"wide": teacher})


def loss_of(term: Term, student: Tensor, teacher: Tensor) -> Loss:
    labels = torch.arange(40) % 4
    shapes = Shapes({"narrow": tuple(student.shape[1:])}, {"wide": tuple(teacher.shape[1:])}, 3, 40, labels)
    torch.manual_seed(5)
    return Loss(Objective(terms=[term]), shapes).to(student.dtype)


def value_of(term: Term, student: Tensor, teacher: Tensor) -> float:
    """The term's value, without its weight."""
    return float(loss_of(term, student, teacher)(views_of(student, teacher))[1].detach())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(
    ("term", "value"),
    [
        # megvii-research/mdistiller:mdistiller/distillers, one file each
        (Fitnet(pairs=PAIR), 0.9977271524451011),
        (At(pairs=PAIR), 0.0003268639660166561),
        (Rkd(pairs=PAIR), 0.02160654690935285),
        (Rkd(pairs=PAIR, distance_weight=1, angle_weight=0), 2.80503628e-4),
        (Rkd(pairs=PAIR, distance_weight=0, angle_weight=1), 2.91879124e-4),
        (Sp(pairs=PAIR), 0.00048421388951481705),
        (Nst(pairs=PAIR), 0.9897973743911066),
        (Pkt(pairs=PAIR), 0.000126384685796),
        (Cka(pairs=PAIR), 0.0021880624274637217),  # the closed form
        (CosineDistance(pairs=PAIR), 0.997512966903926),  # airaria/TextBrewer:src/textbrewer/losses.py
    ],
    ids=lambda term: getattr(term, "kind", None),
)
def test_published_values_are_met(term: Term, value: float) -> None:
    assert value_of(term, STUDENT, TEACHER) == pytest.approx(value, rel=1e-6)
    single = value_of(term, STUDENT.float(), TEACHER.float())
    # Small differences of numbers near 1 keep fewer digits.
    assert single == pytest.approx(value, rel=1e-3 if value < 1e-3 else 1e-4)


def test_the_published_cosine_of_pooled_features_is_met() -> None:
    value = value_of(CosineDistance(pairs=PAIR), STUDENT.mean((2, 3)), TEACHER.mean((2, 3)))
    assert value == pytest.approx(1.01719286317, rel=1e-6)


def test_the_published_hierarchical_context_loss_is_met() -> None:
    assert float(context_loss(STUDENT, TEACHER)) == pytest.approx(0.5703692841841277, rel=1e-6)


# The definitions, by loops in NumPy. Features are (N, C, positions...) here.


def pooled_to(features: Array, size: Sequence[int]) -> Array:
    """Adaptive average pooling of the axes behind the channels: each cell averages the inputs that it touches."""
    cells = [
        [(cell * n // out, -(-(cell + 1) * n // out)) for cell in range(out)]
        for n, out in zip(features.shape[2:], size, strict=True)
    ]
    pooled = np.empty((*features.shape[:2], *size))
    for place in product(*(range(out) for out in size)):
        window = tuple(slice(*cells[axis][cell]) for axis, cell in enumerate(place))
        every = (slice(None), slice(None))
        pooled[every + place] = features[every + window].mean(axis=tuple(range(2, features.ndim)))
    return pooled


def one_size(student: Array, teacher: Array) -> tuple[Array, Array]:
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return pooled_to(student, size), pooled_to(teacher, size)


def vectors(features: Array) -> Array:
    return cast("Array", features.reshape(*features.shape[:2], -1).mean(2))


def by_hand_at(student: Array, teacher: Array, power: float) -> float:
    maps = []
    for features in one_size(student, teacher):
        strength = (np.abs(features) ** power).mean(1).reshape(len(features), -1)
        maps.append(np.stack([row / math.sqrt(sum(row**2)) for row in strength]))
    return float(np.mean((maps[0] - maps[1]) ** 2))


def by_hand_nst(student: Array, teacher: Array) -> float:
    def kernel(ours: Array, theirs: Array) -> float:
        found = []
        for a, b in product(ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)):
            found.append((a @ b / math.sqrt((a @ a) * (b @ b))) ** 2)
        return float(np.mean(found))

    student, teacher = one_size(student, teacher)
    return float(np.mean([
        kernel(t, t) + kernel(s, s) - 2 * kernel(s, t) for s, t in zip(student, teacher, strict=True)
    ]))


def smooth_l1(gap: float) -> float:
    return gap**2 / 2 if abs(gap) < 1 else abs(gap) - 0.5


def by_hand_rkd(student: Array, teacher: Array, distance_weight: float, angle_weight: float) -> float:
    def distances(rows: Array) -> Array:
        apart = np.array([[np.linalg.norm(a - b) for b in rows] for a in rows])
        return cast("Array", apart / apart[apart > 0].mean())

    def angle(rows: Array, i: int, j: int, k: int) -> float:
        a, b = rows[j] - rows[i], rows[k] - rows[i]
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / lengths) if lengths else 0.0

    s, t = vectors(student), vectors(teacher)
    apart = [smooth_l1(gap) for gap in (distances(s) - distances(t)).flatten()]
    bent = [smooth_l1(angle(s, *ijk) - angle(t, *ijk)) for ijk in product(range(len(s)), repeat=3)]
    return float(distance_weight * np.mean(apart) + angle_weight * np.mean(bent))


def by_hand_sp(student: Array, teacher: Array) -> float:
    grams = []
    for features in (student, teacher):
        flat = features.reshape(len(features), -1)
        gram = np.array([[a @ b for b in flat] for a in flat])
        grams.append(np.stack([row / np.linalg.norm(row) for row in gram]))
    return float(((grams[0] - grams[1]) ** 2).sum() / len(student) ** 2)


def by_hand_pkt(student: Array, teacher: Array) -> float:
    chances = []
    for rows in (vectors(student), vectors(teacher)):
        alike = np.array([[(1 + a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / 2 for b in rows] for a in rows])
        chances.append(alike / alike.sum(1, keepdims=True))
    q, p = chances
    return float(np.mean(p * np.log(p / q)))


def by_hand_cka(student: Array, teacher: Array) -> float:
    x, y = (rows - rows.mean(0) for rows in (vectors(student), vectors(teacher)))
    return float(
        1 - np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    )


def by_hand_cosine(student: Array, teacher: Array) -> float:
    student, teacher = one_size(student, teacher)
    found = []
    sides = [np.moveaxis(side, 1, -1).reshape(-1, side.shape[1]) for side in (student, teacher)]
    for a, b in zip(*sides, strict=True):
        found.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return float(np.mean(found))


def by_hand_mse(student: Array, teacher: Array) -> float:
    student, teacher = one_size(student, teacher)
    return float(np.mean((student - teacher) ** 2))


BY_HAND: dict[str, Callable[..., float]] = {
    "at": by_hand_at, "nst": by_hand_nst, "rkd": by_hand_rkd, "sp": by_hand_sp, "pkt": by_hand_pkt, "cka": by_hand_cka,
    "cosine": by_hand_cosine, "fitnet": by_hand_mse,
}


def channels_first(features: Tensor) -> Array:
    return cast("Array", (features.transpose(1, 2) if features.ndim == 3 else features).numpy())


NOT_ALIKE = {
    "maps": (noise(5, 6, 9, 7), noise(5, 4, 6, 8, seed=1)),  # pooled to 6 x 7
    "few positions": (noise(4, 9, 2, 2), noise(4, 11, 3, 2, seed=1)),
    "tokens": (noise(5, 7, 6), noise(5, 5, 4, seed=1)),
    "vectors": (noise(6, 3), noise(6, 8, seed=1)),
}
ALIKE = {
    "maps": (noise(3, 4, 6, 5), noise(3, 4, 4, 5, seed=1)), "tokens": (noise(3, 7, 4), noise(3, 3, 4, seed=1)),
    "vectors": (noise(5, 4), noise(5, 4, seed=1)),
}


@pytest.mark.parametrize(
    ("term", "arguments"),
    [
        (At(pairs=PAIR, power=2), {"power": 2}),
        (At(pairs=PAIR, power=1), {"power": 1}),
        (At(pairs=PAIR, power=3.5), {"power": 3.5}),
        (Nst(pairs=PAIR), {}),
        (Rkd(pairs=PAIR), {"distance_weight": 25, "angle_weight": 50}),
        (Rkd(pairs=PAIR, distance_weight=3, angle_weight=0.5), {"distance_weight": 3, "angle_weight": 0.5}),
        (Sp(pairs=PAIR), {}),
        (Pkt(pairs=PAIR), {}),
        (Cka(pairs=PAIR), {}),
    ],
    ids=lambda term: getattr(term, "kind", str(term)),
)
def test_loops_agree_on_layers_of_other_widths_and_sizes(term: Term, arguments: dict[str, Any]) -> None:
    for form in NOT_ALIKE.keys() - ({"vectors"} if term.kind in {"at", "nst"} else set()):
        student, teacher = NOT_ALIKE[form]
        expected = BY_HAND[term.kind](channels_first(student), channels_first(teacher), **arguments)
        # PKT's own slack of 1e-7 is not in the loops.
        rel = 1e-5 if term.kind == "pkt" else 1e-10
        assert value_of(term, student, teacher) == pytest.approx(expected, rel=rel), form


@pytest.mark.parametrize("form", ALIKE)
@pytest.mark.parametrize("term", [Fitnet(pairs=PAIR), CosineDistance(pairs=PAIR)], ids=lambda term: term.kind)
@pytest.mark.parametrize("items", [1, 3])
def test_loops_agree_where_nothing_is_projected(term: Term, form: str, items: int) -> None:
    student, teacher = (features[:items] for features in ALIKE[form])
    assert not list(loss_of(term, student, teacher).parameters())
    expected = BY_HAND[term.kind](channels_first(student), channels_first(teacher))
    assert value_of(term, student, teacher) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", NOT_ALIKE)
@pytest.mark.parametrize("kind", ["fitnet", "cosine"])
@pytest.mark.parametrize("projection", ["auto", "learned", "fixed"])
def test_loops_agree_on_what_is_projected(kind: str, projection: Any, form: str) -> None:  # noqa: ANN401 - a literal
    student, teacher = NOT_ALIKE[form]
    term = (Fitnet if kind == "fitnet" else CosineDistance)(pairs=PAIR, projection=projection)
    loss = loss_of(term, student, teacher)
    state = loss.state_dict()
    weight = state["learned.0.projections.0.weight"].numpy()
    bias = state["learned.0.projections.0.bias"].numpy() if projection != "fixed" else np.zeros(len(weight))
    assert bool(list(loss.parameters())) == (projection != "fixed")
    first = channels_first(student)
    weight = weight.reshape(weight.shape[:2])
    projected = np.stack([
        sum(weight[out, of] * first[:, of] for of in range(first.shape[1])) + bias[out] for out in range(len(weight))
    ], axis=1)
    expected = BY_HAND[kind](projected, channels_first(teacher))
    found = float(loss(views_of(student, teacher))[1].detach())
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("width", "other"), [(3, 7), (7, 3), (5, 5)])
def test_a_fixed_projection_keeps_lengths_or_is_as_near_to_that_as_it_can(width: int, other: int) -> None:
    weight = loss_of(Fitnet(pairs=PAIR, projection="fixed"), noise(2, width), noise(2, other)).state_dict()[
        "learned.0.projections.0.weight"
    ]
    product_ = weight @ weight.T if other <= width else weight.T @ weight
    assert torch.allclose(product_, torch.eye(min(width, other), dtype=torch.float64), atol=1e-6)


def test_equal_widths_are_projected_only_where_that_is_asked() -> None:
    student, teacher = ALIKE["maps"]
    learned = {kind: list(loss_of(Fitnet(pairs=PAIR, projection=kind), student, teacher).parameters()) for kind in (
        "auto", "learned", "fixed", "none"
    )}
    assert {kind for kind, parameters in learned.items() if parameters} == {"learned"}
    plain = value_of(Fitnet(pairs=PAIR, projection="none"), student, teacher)
    assert plain == value_of(Fitnet(pairs=PAIR), student, teacher)
    assert plain != value_of(Fitnet(pairs=PAIR, projection="fixed"), student, teacher)


@pytest.mark.parametrize("form", NOT_ALIKE)
def test_vid_is_the_log_density_of_a_normal_distribution(form: str) -> None:
    student, teacher = NOT_ALIKE[form]
    loss = loss_of(Vid(pairs=PAIR, initial_variance=2.5), student, teacher)
    with torch.no_grad():
        loss.learned[0].densities[0].softened_variance.add_(  # type: ignore[union-attr,index]
            torch.linspace(-1, 1, NOT_ALIKE[form][1].shape[2 if form == "tokens" else 1])
        )
    state = {name.rsplit("densities.0.")[-1]: value.numpy() for name, value in loss.state_dict().items()}
    small, taught = one_size(channels_first(student), channels_first(teacher))
    hidden = small
    for layer in (0, 2, 4):
        weight = state[f"mean.{layer}.weight"].reshape(len(state[f"mean.{layer}.bias"]), -1)
        hidden = np.moveaxis(np.moveaxis(hidden, 1, -1) @ weight.T + state[f"mean.{layer}.bias"], -1, 1)
        hidden = hidden if layer == 4 else np.maximum(hidden, 0)
    variance = np.log1p(np.exp(state["softened_variance"])) + 1e-5
    of_channel = variance.reshape(-1, *[1] * (taught.ndim - 2))
    density = np.exp(-((taught - hidden) ** 2) / (2 * of_channel)) / np.sqrt(2 * np.pi * of_channel)
    expected = -np.mean(np.log(density)) - np.log(2 * np.pi) / 2
    assert float(loss(views_of(student, teacher))[1].detach()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("variance", [1e-3, 0.5, 5.0, 1000.0])
def test_vids_variance_starts_as_asked(variance: float) -> None:
    state = loss_of(Vid(pairs=PAIR, initial_variance=variance), noise(2, 3), noise(2, 4)).state_dict()
    softened = state["learned.0.densities.0.softened_variance"]
    assert softened.shape == (4,)
    assert (functional.softplus(softened) + 1e-5).tolist() == pytest.approx([variance] * 4, rel=1e-5)


def stages(items: int = 3, *, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Of a student of 4, 6 and 5 channels, and of a teacher of 3, 7 and 8; the last are vectors."""
    student = [noise(items, 4, 8, 6), noise(items, 6, 4, 3, seed=1), noise(items, 5, seed=2)]
    teacher = [noise(items, 3, 8, 6, seed=3), noise(items, 7, 5, 5, seed=4), noise(items, 8, seed=5)]
    return [stage.to(dtype) for stage in student], [stage.to(dtype) for stage in teacher]


def review_of(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[Loss, Views]:
    pairs = [LayerPair(student=f"s{place}", teacher=f"t{place}") for place in range(len(student))]
    features = {f"s{place}": stage for place, stage in enumerate(student)}
    teacher_features = {f"t{place}": stage for place, stage in enumerate(teacher)}
    shapes = Shapes(shapes_of(features), shapes_of(teacher_features), 3, 40)
    torch.manual_seed(6)
    loss = Loss(Objective(terms=[Review(pairs=pairs)]), shapes).to(student[0].dtype)
    outputs = torch.zeros(len(student[0]), 3)
    return loss, Views(outputs, outputs, features=features, teacher_features=teacher_features)


def normalized(features: Array) -> Array:
    """As batch normalisation does it before it has learned."""
    axes = (0, 2, 3)
    mean, variance = features.mean(axes, keepdims=True), features.var(axes, keepdims=True)
    return cast("Array", (features - mean) / np.sqrt(variance + 1e-5))


def convolved(features: Array, weight: Array) -> Array:
    around = weight.shape[2] // 2
    padded = np.pad(features, ((0, 0), (0, 0), (around, around), (around, around)))
    height, width = features.shape[2:]
    out = np.zeros((len(features), len(weight), height, width))
    for down, right in product(range(weight.shape[2]), range(weight.shape[3])):
        window = padded[:, :, down : down + height, right : right + width]
        out += np.einsum("nchw,oc->nohw", window, weight[:, :, down, right])
    return out


def nearest(features: Array, size: Sequence[int]) -> Array:
    rows, columns = (np.arange(to) * of // to for to, of in zip(size, features.shape[2:], strict=True))
    return cast("Array", features[:, :, rows][:, :, :, columns])


def by_hand_context(student: Array, teacher: Array) -> float:
    total, weights = float(np.mean((student - teacher) ** 2)), 1.0
    for grid, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
        if grid < max(student.shape[2:]):
            share = weight * 2 ** sum(coarser >= max(student.shape[2:]) for coarser in (4, 2, 1))
            size = [min(grid, side) for side in student.shape[2:]]
            total += share * float(np.mean((pooled_to(student, size) - pooled_to(teacher, size)) ** 2))
            weights += share
    return total / weights


def test_review_fuses_from_deep_to_shallow() -> None:
    student, teacher = stages()
    loss, views = review_of(student, teacher)
    state = {name.removeprefix("learned.0.fusions."): value.numpy() for name, value in loss.state_dict().items()}
    assert state["0.narrow.0.weight"].shape[0] == 5  # as wide as the deepest stage of the student
    values: list[float] = []
    deeper = None
    for place in (2, 1, 0):
        mine, taught = (stage.numpy() for stage in (student[place], teacher[place]))
        mine, taught = (side if side.ndim == 4 else side[:, :, None, None] for side in (mine, taught))
        fused = normalized(convolved(mine, state[f"{place}.narrow.0.weight"]))
        if deeper is not None:
            risen = nearest(deeper, fused.shape[2:])
            scores = convolved(np.concatenate([fused, risen], 1), state[f"{place}.attention.weight"])
            shares = 1 / (1 + np.exp(-scores - state[f"{place}.attention.bias"][:, None, None]))
            fused = fused * shares[:, [0]] + risen * shares[:, [1]]
        deeper = nearest(fused, taught.shape[2:])
        output = normalized(convolved(deeper, state[f"{place}.widen.0.weight"]))
        values.append(by_hand_context(output, taught))
    assert float(loss(views)[1].detach()) == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize("size", [(7, 7), (4, 4), (3, 3), (2, 2), (1, 1), (3, 8), (6, 1)])
def test_the_context_loss_averages_over_the_grids_that_are_coarser(size: tuple[int, int]) -> None:
    student, teacher = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    expected = by_hand_context(student.numpy(), teacher.numpy())
    assert float(context_loss(student, teacher)) == pytest.approx(expected, rel=1e-12)


def test_a_term_is_the_mean_over_its_pairs() -> None:
    student = {"narrow": noise(4, 6, 4, 4), "narrow.deep": noise(4, 8, 2, 2, seed=1)}
    teacher = {"wide": noise(4, 5, 4, 4, seed=2), "wide.deep": noise(4, 7, 3, 3, seed=3)}
    shapes = Shapes(shapes_of(student), shapes_of(teacher), 3, 40)
    outputs = torch.zeros(4, 3)
    views = Views(outputs, outputs, features=student, teacher_features=teacher)
    for kind in (At, Nst, Rkd, Sp, Pkt, Cka):
        both = Loss(Objective(terms=[kind(pairs=TWO_PAIRS)]), shapes)(views)[1]
        single = [Loss(Objective(terms=[kind(pairs=[pair])]), shapes)(views)[1] for pair in TWO_PAIRS]
        assert float(both) == pytest.approx(float(single[0] + single[1]) / 2)
    for term in (Fitnet(pairs=TWO_PAIRS), CosineDistance(pairs=TWO_PAIRS), Vid(pairs=TWO_PAIRS)):
        loss = Loss(Objective(terms=[term]), shapes).double()
        module = loss.learned[0]
        both = module(views)
        parts = module.densities if isinstance(term, Vid) else module.projections
        assert isinstance(parts, nn.ModuleList)
        singles = []
        for place, pair in enumerate(TWO_PAIRS):
            one = Loss(Objective(terms=[term.model_copy(update={"pairs": [pair]})]), shapes).double()
            name = "densities" if isinstance(term, Vid) else "projections"
            setattr(one.learned[0], name, nn.ModuleList([parts[place]]))
            singles.append(one(views)[1])
        assert float(both.detach()) == pytest.approx(float((singles[0] + singles[1]).detach()) / 2)


@pytest.mark.parametrize("term", [Rkd(), Sp(), Pkt(), Cka(), CosineDistance()], ids=lambda term: term.kind)
def test_without_layers_the_models_own_outputs_are_compared(term: Term) -> None:
    student, teacher = noise(5, 4), noise(5, 4, seed=1)
    torch.manual_seed(5)
    loss = Loss(Objective(terms=[term]), Shapes({}, {}, 4, 40))
    with_layers = term.model_copy(update={"pairs": PAIR})
    found = loss(Views(student, teacher))[1]
    assert float(found) == pytest.approx(value_of(with_layers, student, teacher))


EVERY: list[Term] = [
    Fitnet(pairs=PAIR), At(pairs=PAIR), Nst(pairs=PAIR), Vid(pairs=PAIR), Review(pairs=PAIR), Rkd(pairs=PAIR),
    Sp(pairs=PAIR), Pkt(pairs=PAIR), Cka(pairs=PAIR), CosineDistance(pairs=PAIR),
    Crd(pairs=PAIR, feat_dim=8, num_negatives=16),
]
RELATIONAL = [term for term in EVERY if term.compares_items]


@pytest.mark.parametrize("term", EVERY, ids=lambda term: term.kind)
def test_the_gradient_is_that_of_the_value(term: Term) -> None:
    student, teacher = noise(3, 3, 3, 2).requires_grad_(), noise(3, 2, 3, 3, seed=1)
    ids = torch.tensor([3, 11, 6])
    began = loss_of(term, student, teacher)
    began(views_of(student.detach(), teacher, ids=ids))  # CRD measures its constant
    state = began.state_dict()

    def value(features: Tensor) -> Tensor:
        loss = loss_of(term, student, teacher)
        loss.load_state_dict(state)  # CRD's memory moves with every call
        return cast("Tensor", loss(views_of(features, teacher, ids=ids))[1]) * 1.7

    assert torch.autograd.gradcheck(value, (student,))


@pytest.mark.parametrize("term", [Fitnet(pairs=PAIR), Vid(pairs=PAIR), CosineDistance(pairs=PAIR), Review(pairs=PAIR)])
def test_the_gradient_reaches_what_learns(term: Term) -> None:
    student, teacher = noise(3, 3, 4, 4), noise(3, 2, 4, 3, seed=1)
    loss = loss_of(term, student, teacher)
    parameters = dict(loss.named_parameters())
    assert parameters

    def value(*changed: Tensor) -> Tensor:
        named = dict(zip(parameters, changed, strict=True))
        return cast("list[Tensor]", torch.func.functional_call(loss, named, (views_of(student, teacher),)))[1]

    # Batch normalisation forgets the scale of what comes before it, but for its own small number.
    assert torch.autograd.gradcheck(value, tuple(parameters.values()), atol=1e-4 if term.kind == "review" else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("term", EVERY, ids=lambda term: term.kind)
@pytest.mark.parametrize("case", ["huge", "dead", "same", "opposite", "tiny"])
def test_extreme_features_stay_finite(term: Term, dtype: torch.dtype, case: str) -> None:
    student = {
        "huge": noise(4, 6, 4, 4) * 1e4, "dead": torch.zeros(4, 6, 4, 4), "same": torch.ones(4, 6, 4, 4) * 1e4,
        "opposite": -1e4 * noise(4, 5, 4, 4, seed=1)[:, [0, 1, 2, 3, 4, 0]], "tiny": noise(4, 6, 4, 4) * 1e-30,
    }[case].to(dtype).requires_grad_()
    teacher = (noise(4, 5, 4, 4, seed=1) * 1e4).to(dtype)
    loss = loss_of(term, student, teacher).float()
    value = loss(views_of(student, teacher, ids=torch.tensor([0, 1, 2, 3])))[1]
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("term", [At(pairs=PAIR), CosineDistance(pairs=PAIR), Sp(pairs=PAIR), Pkt(pairs=PAIR)])
def test_dead_features_do_not_drown_the_gradient_of_others(term: Term) -> None:
    student = noise(4, 5, 4, 4)
    student[0] = 0
    student = student.requires_grad_()
    loss_of(term, student, noise(4, 5, 4, 4, seed=1))(views_of(student, noise(4, 5, 4, 4, seed=1)))[1].backward()
    assert student.grad is not None
    assert student.grad[0].norm() < 100 * student.grad[1:].norm()


@pytest.mark.parametrize("items", [0, 1])
@pytest.mark.parametrize("term", RELATIONAL, ids=lambda term: term.kind)
def test_one_item_relates_to_nothing(term: Term, items: int) -> None:
    student = noise(items, 3, 4, 4).requires_grad_()
    teacher = noise(items, 2, 4, 3, seed=1)
    value = loss_of(term, student, teacher)(views_of(student, teacher))[1]
    value.backward()
    assert value.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("term", RELATIONAL, ids=lambda term: term.kind)
def test_items_that_are_all_the_same_are_no_division_by_zero(term: Term) -> None:
    student, teacher = torch.ones(4, 3, 4, 4).double().requires_grad_(), noise(4, 2, 4, 3, seed=1)
    value = loss_of(term, student, teacher)(views_of(student, teacher))[1]
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_only_what_compares_items_changes_with_the_other_items() -> None:
    student, teacher = noise(4, 3, 4, 4), noise(4, 2, 4, 3, seed=1)
    for term in EVERY:
        if term.kind == "crd":
            continue  # tested apart, with its memory
        loss = loss_of(term, student, teacher)
        whole = float(loss(views_of(student, teacher))[1].detach())
        single = [float(loss(views_of(student[[n]], teacher[[n]]))[1].detach()) for n in range(4)]
        assert (whole == pytest.approx(sum(single) / 4)) == (not term.compares_items), term.kind


def test_many_items_are_compared_a_lot_of_anchors_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = noise(7, 3).requires_grad_(), noise(7, 5, seed=1)
    term: Term = Rkd(pairs=PAIR)

    def run() -> tuple[float, Tensor, list[float]]:
        loss = Loss(Objective(terms=[term, Mse()]), Shapes({"narrow": (3,)}, {"wide": (5,)}, 3, 40))
        views = views_of(student, teacher)._replace(student=student, teacher=teacher[:, :3])
        values = loss(views)
        shares = loss.gradient_shares(values, views, 0.0)
        return float(values[1].detach()), torch.autograd.grad(values[0], student)[0], shares.tolist()

    expected = run()
    monkeypatch.setattr(sys.modules[OBJECTIVES["rkd"].__module__], "MAX_ANGLE_NUMBERS", 2 * 7 * 7)
    made_again = run()
    assert made_again[0] == pytest.approx(expected[0], rel=1e-12)
    assert torch.allclose(made_again[1], expected[1], rtol=1e-10)
    assert made_again[2] == pytest.approx(expected[2])
    assert made_again[0] == pytest.approx(by_hand_rkd(student.detach().numpy(), teacher.numpy(), 25, 50))


@pytest.mark.parametrize(
    ("term", "student", "teacher", "told"),
    [
        (Fitnet(pairs=PAIR), (4, 3, 3), (4,), "cannot be laid over each other"),
        (CosineDistance(pairs=PAIR), (7, 4), (4, 3, 3), "cannot be laid over each other"),
        (Vid(pairs=PAIR), (4,), (7, 4), "cannot be laid over each other"),
        (At(pairs=PAIR), (4, 3, 3), (7, 4), "cannot be laid over each other"),
        (At(pairs=PAIR), (4,), (4,), r"reads a map \[channels, height, width\] or tokens \[positions, channels\]"),
        (Nst(pairs=PAIR), (4,), (4,), "reads a map"),
        (Review(pairs=PAIR), (7, 4), (7, 4), "reads a map"),
        (Fitnet(pairs=PAIR), (4, 2, 2, 2), (4, 2, 2, 2), "reads a vector"),
        (Fitnet(pairs=PAIR, projection="none"), (4, 3, 3), (5, 3, 3), "has 4 channels and the teacher's 5"),
        (CosineDistance(pairs=PAIR, projection="none"), (7, 4), (7, 5), "auto, learned or fixed"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    term: Term, student: tuple[int, ...], teacher: tuple[int, ...], told: str
) -> None:
    shapes = Shapes({"narrow": student}, {"wide": teacher}, 3, 40)
    with pytest.raises(IncompatibleLayersError, match=told) as refused:
        Loss(Objective(terms=[Mse(weight=0), Mse(name="other"), term]), shapes)
    assert refused.value.param == "/objective/terms/2/pairs/0"


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_stages_that_grow_are_refused(side: str) -> None:
    fitting = {"a": (3, 8, 8), "b": (4, 4, 4), "c": (5, 4, 5)}
    level = {"a": (3, 8, 8), "b": (4, 8, 8), "c": (5, 1, 1)}
    sides = (fitting, level) if side == "student" else (level, fitting)
    pairs = [LayerPair(student=path, teacher=path) for path in "abc"]
    told = rf"the {side}'s layers grow from \[4, 4\] to \[4, 5\]"
    with pytest.raises(IncompatibleLayersError, match=told) as refused:
        Loss(Objective(terms=[Review(pairs=pairs)]), Shapes(*sides, 3, 40))
    assert refused.value.param == "/objective/terms/0/pairs/2"


@pytest.mark.parametrize("student", [(3,), (7, 3), (3, 4, 4), (3, 2, 2, 2)])
@pytest.mark.parametrize("term", [Rkd(pairs=PAIR), Sp(pairs=PAIR), Pkt(pairs=PAIR), Cka(pairs=PAIR)])
def test_terms_that_relate_items_take_any_two_shapes(term: Term, student: tuple[int, ...]) -> None:
    assert math.isfinite(value_of(term, noise(5, *student), noise(5, 4, seed=1)))


def trained(loss: Loss, steps: range) -> list[float]:
    """Losses of steps that train what learns; the features are functions of the step."""
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05)
    found = []
    for step in steps:
        student, teacher = noise(4, 3, 4, 4, seed=step).float(), noise(4, 2, 4, 3, seed=100 + step).float()
        total = loss(views_of(student, teacher, ids=(torch.arange(4) * 7 + step) % 40))[0]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        found.append(float(total.detach()))
    return found


LEARNING = [term for term in EVERY if term.kind in {"fitnet", "vid", "review", "crd", "cosine"}]


def fresh(term: Term, seed: int) -> Loss:
    labels = torch.arange(40) % 4
    torch.manual_seed(seed)
    return Loss(Objective(terms=[term]), Shapes({"narrow": (3, 4, 4)}, {"wide": (2, 4, 3)}, 3, 40, labels))


@pytest.mark.parametrize("term", LEARNING, ids=lambda term: term.kind)
def test_a_checkpoint_of_what_learned_goes_on_bit_by_bit(term: Term) -> None:
    through = trained(fresh(term, 1), range(6))
    stopped = fresh(term, 1)
    trained(stopped, range(3))
    state = {name: tensor.clone() for name, tensor in stopped.state_dict().items()}
    resumed = fresh(term, 2)
    resumed.load_state_dict(state)
    assert trained(resumed, range(3, 6)) == through[3:]
    assert trained(fresh(term, 1), range(3, 6)) != through[3:]  # it did learn or remember


@pytest.mark.parametrize("term", [*LEARNING, Fitnet(pairs=PAIR, projection="fixed")], ids=lambda term: term.kind)
def test_the_default_generator_seeds_what_learns(term: Term) -> None:
    one, same, other = (fresh(term, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("term", "needed"),
    [
        (Fitnet(pairs=PAIR), 4 * 4 * (300 * 200 + 200)),
        (Vid(pairs=PAIR), 4 * 4 * (300 * 200 + 2 * 200 * 200 + 4 * 200)),
        (Crd(pairs=PAIR, feat_dim=8), 4 * 4 * (300 + 200 + 2) * 8 + 2 * (4 * 2 * 8 * 40 + 8 + 8 + 2 * 4 + 2 * 8 * 40)),
    ],
    ids=lambda term: getattr(term, "kind", None),
)
def test_what_does_not_fit_in_memory_is_told_before_it_is_made(
    term: Term, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = Shapes({"narrow": (300,)}, {"wide": (200,)}, 3, 40, torch.arange(40) % 4)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    Loss(Objective(terms=[Mse(), term]), shapes)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(OutOfMemoryError, match=rf"learns and remembers needs about {needed:,} bytes") as refused:
        Loss(Objective(terms=[Mse(), term]), shapes)
    assert refused.value.param == "/objective/terms/1"


def test_looking_at_what_a_module_will_take_draws_nothing() -> None:
    torch.manual_seed(7)
    expected = nn.Linear(3, 4).state_dict()
    torch.manual_seed(7)
    made = Loss(Objective(terms=[Fitnet(pairs=PAIR)]), Shapes({"narrow": (3,)}, {"wide": (4,)}, 3, 40)).state_dict()
    assert torch.equal(made["learned.0.projections.0.weight"], expected["weight"])


def test_the_fusion_starts_as_published() -> None:
    student, teacher = stages()
    for name, weight in review_of(student, teacher)[0].state_dict().items():
        if name.endswith(("narrow.0.weight", "widen.0.weight")):
            bound = math.sqrt(3 / weight[0].numel())  # Kaiming's, uniform, as for a linear layer
            assert 0.8 * bound < float(weight.abs().max()) <= bound


def test_a_term_may_have_any_name() -> None:
    names = ["type", "keys", "parameters", "training"]
    terms: list[Term] = [Fitnet(name=name, pairs=PAIR, projection="learned") for name in names]
    loss = Loss(Objective(terms=terms), Shapes({"narrow": (3,)}, {"wide": (4,)}, 3, 40))
    assert len(list(loss.parameters())) == 2 * len(names)
    assert loss.names == ["loss", *(f"loss.{name}" for name in names)]


def test_a_loss_tells_which_layers_it_looks_at_and_who_named_them() -> None:
    loss = Loss(
        Objective(terms=[Mse(), At(pairs=TWO_PAIRS, weight=0), Cka(pairs=TWO_PAIRS), Sp(pairs=PAIR)]),
        Shapes({}, {}, 3, 40),
    )
    assert loss.student_layers == {
        "narrow": "/objective/terms/2/pairs/0/student", "narrow.deep": "/objective/terms/2/pairs/1/student"
    }
    assert loss.teacher_layers == {
        "wide": "/objective/terms/2/pairs/0/teacher", "wide.deep": "/objective/terms/2/pairs/1/teacher"
    }


def test_a_teacher_of_other_precision_is_compared_in_the_students() -> None:
    student, teacher = NOT_ALIKE["maps"]
    for term in EVERY[:-1]:
        value = loss_of(term, student, teacher)(views_of(student, teacher.float()))[1]
        assert value.dtype == torch.float64
        assert float(value.detach()) == pytest.approx(value_of(term, student, teacher), rel=1e-5)
