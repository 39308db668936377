"""Contrastive representation distillation (Tian, Krishnan and Isola, 2020)."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stillhouse.contract.failures import SingleClassError
from stillhouse.contract.spec import LayerPair
from worker.engine.data.augment.draws import draw
from worker.engine.objectives.geometry import directions, mean_over_pairs, pooled
from worker.engine.objectives.views import Shapes, Views

NUM_FACTORS = 64  # between 1 and 2: their product is far from the largest float32


class Crd(nn.Module):
    """Noise-contrastive loss of telling each item's embedding from those of other classes; mean over pairs, in nats.

    Costs num_samples x feat_dim x 8 bytes of memory for each pair. 0 in evaluation, whose items it does not remember.
    """

    def __init__(
        self, *, shapes: Shapes, pairs: Sequence[LayerPair], feat_dim: int, num_negatives: int, temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self._pairs = pairs
        self.contrasts = nn.ModuleList(
            Contrast(
                shapes.student[pair.student], shapes.teacher[pair.teacher], _labels(shapes), feat_dim=feat_dim,
                num_negatives=num_negatives, temperature=temperature, momentum=momentum,
            )
            for pair in pairs
        )

    def forward(self, views: Views) -> Tensor:
        """The mean over the pairs; a scalar. Each call in training moves the memory on, so call it once a step."""
        if not self.training:
            return views.student.sum() * 0.0
        assert views.ids is not None  # noqa: S101 - ours, not the user's: every feed of such a term gives them
        pairs = zip(self.contrasts, views.pairs(self._pairs), strict=True)
        return mean_over_pairs(contrast(pooled(a), pooled(b), views.ids) for contrast, (a, b) in pairs)


class Contrast(nn.Module):
    """One pair of layers: how both are embedded, and the embeddings of each sample as it was last seen."""

    seed: Tensor
    calls: Tensor
    log_scales: Tensor
    student_memory: Tensor
    teacher_memory: Tensor
    labels: Tensor
    labelled: Tensor

    def __init__(
        self, student: tuple[int, ...], teacher: tuple[int, ...], labels: Tensor, *, feat_dim: int, num_negatives: int,
        temperature: float, momentum: float,
    ) -> None:
        super().__init__()
        self._temperature, self._momentum = temperature, momentum
        self.student_embedding = nn.Linear(_width(student), feat_dim)
        self.teacher_embedding = nn.Linear(_width(teacher), feat_dim)
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        # log of z for the student's and the teacher's anchors: set by the first call, constant from then on.
        self.register_buffer("log_scales", torch.zeros(2))
        self.register_buffer("student_memory", directions(torch.randn(len(labels), feat_dim), 1))
        self.register_buffer("teacher_memory", directions(torch.randn(len(labels), feat_dim), 1))
        # The data has them, so a checkpoint need not.
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("labelled", (labels >= 0).nonzero()[:, 0], persistent=False)
        self._num_negatives = min(num_negatives, len(self.labelled))

    def forward(self, student: Tensor, teacher: Tensor, ids: Tensor) -> Tensor:
        """Loss of vectors (N, C) and (N, D) of the samples `ids`; a scalar. Moves the memory on."""
        anchors = directions(self.student_embedding(student), 1), directions(self.teacher_embedding(teacher), 1)
        negatives = self.draw_negatives()
        # Of copies of the memory: autograd needs what stood there before the update.
        memories = self.teacher_memory, self.student_memory
        scores = [
            (_score(anchor, memory[ids]) / self._temperature, anchor @ memory[negatives].mT / self._temperature)
            for anchor, memory in zip(anchors, memories, strict=True)
        ]
        self._set_scales([others for _, others in scores])
        is_other = self.labels[negatives] != self.labels[ids][:, None]
        per_item = torch.stack([
            _contrastive_loss(*score, is_other, scale) for score, scale in zip(scores, self.log_scales, strict=True)
        ]).sum(0)
        self._remember(ids, *anchors)
        is_labelled = self.labels[ids] >= 0
        return torch.where(is_labelled, per_item, 0).sum() / is_labelled.sum().clamp(min=1)

    def draw_negatives(self) -> Tensor:
        """Labelled samples (num_negatives,) that this call compares with: a function of seed and number of the call."""
        places = torch.arange(self._num_negatives, device=self.calls.device)
        key = draw(self.calls[None], self.seed)[0]
        return self.labelled[draw(places, key) % len(self.labelled)]

    @torch.no_grad()
    def _set_scales(self, others: Sequence[Tensor]) -> None:
        measured = torch.stack([_log_mean_exp(_of_all_ranks(_log_mean_exp(scores)[None])) for scores in others])
        # Without asking the device which call it is.
        self.log_scales.copy_(torch.where(self.calls == 0, measured, self.log_scales))

    @torch.no_grad()
    def _remember(self, ids: Tensor, student: Tensor, teacher: Tensor) -> None:
        ids = _of_all_ranks(ids)
        for memory, embeddings in ((self.student_memory, student), (self.teacher_memory, teacher)):
            seen = _of_all_ranks(embeddings)
            memory[ids] = directions(self._momentum * memory[ids] + (1 - self._momentum) * seen, 1)
        self.calls += 1


def _contrastive_loss(positive: Tensor, others: Tensor, is_other: Tensor, log_scale: Tensor) -> Tensor:
    """-log h of the positive (N,) and -log (1 - h) of each negative (N, K), summed; (N,)."""
    # h = e / (e + K z) is the logistic function of log e - log z - log K.
    num_negatives = is_other.sum(1, keepdim=True).clamp(min=1)
    offsets = log_scale + num_negatives.to(log_scale.dtype).log()
    compared = torch.where(is_other, others - offsets, -math.inf)
    return functional.softplus(offsets[:, 0] - positive) + sum_of_softplus(compared)


def sum_of_softplus(values: Tensor) -> Tensor:
    """Sum of log(1 + e^u) over K numbers u, (N, K) -> (N,)."""
    return cast("Tensor", _SumOfSoftplus.apply(values))


class _SumOfSoftplus(torch.autograd.Function):
    """The product of many factors is taken before one logarithm, which costs a CPU some forty exponentials."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        ctx.save_for_backward(values.sigmoid())
        # log(1 + e^u) = max(u, 0) + log(1 + e^-|u|): each factor is between 1 and 2.
        factors = values.abs().neg_().exp_().add_(1)
        padded = functional.pad(factors, (0, -factors.shape[1] % NUM_FACTORS), value=1.0)
        products: Tensor = padded.unflatten(1, (-1, NUM_FACTORS)).prod(2)
        return products.log().sum(1) + values.clamp(min=0).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        (slope,) = ctx.saved_tensors
        return cast("Tensor", slope * gradient[:, None])


def _log_mean_exp(values: Tensor) -> Tensor:
    return values.flatten().logsumexp(0) - math.log(values.numel())


def _of_all_ranks(rows: Tensor) -> Tensor:
    """The rows of every process that trains this model, in their order: they all remember the same."""
    if not dist.is_available() or not dist.is_initialized():
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def _score(anchors: Tensor, memory: Tensor) -> Tensor:
    return (anchors * memory).sum(1)


def _labels(shapes: Shapes) -> Tensor:
    assert shapes.labels is not None  # noqa: S101 - ours, not the user's: the spec refuses data without labels
    known = shapes.labels[shapes.labels >= 0]
    if bool((known == known[:1]).all()):
        raise SingleClassError("all labels are the same class, so crd has no samples of other classes")
    return shapes.labels


def _width(shape: tuple[int, ...]) -> int:
    """Channels of the pooled features of a layer whose outputs have this shape."""
    return shape[0] if len(shape) > 2 else shape[-1]  # noqa: PLR2004 - tokens have two axes
