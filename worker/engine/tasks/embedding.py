"""A vector per sample, where the teacher has it."""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.contract.events import Noted
from stillhouse.contract.report import Scores
from stillhouse.contract.spec import Embedding, JobSpec, Objective, TrainTeacher
from stillhouse.contract.spec.task import Quality
from stillhouse.contract.spec.term import TaskKind
from worker.engine.data import Dataset
from worker.engine.objectives import OBJECTIVES, Views
from worker.engine.tasks.task import Answered

NUM_NEIGHBOURS: Final = 10
# Samples that are compared with each other: their pairs are a million, and telling takes a tenth of a second.
MAX_COMPARED: Final = 1000


class EmbeddingTask:
    """Outputs are vectors; the teacher's are all there is to learn from."""

    kind: Final[TaskKind] = "embedding"
    quality: Final[Quality] = Embedding.quality
    outputs: Final = Embedding.outputs

    def num_outputs(self, spec: JobSpec, dataset: Dataset) -> int:
        """Never asked: a teacher that was not trained here tells its width."""
        raise AssertionError(spec, dataset)

    def check_labels(self, dataset: Dataset, num_outputs: int) -> None:
        """Nothing: labels are not read."""

    def name_outputs(self, dataset: Dataset, num_outputs: int) -> list[str]:
        """None: dimensions have no names."""
        del dataset, num_outputs
        return []

    def remarks(self, spec: JobSpec, dataset: Dataset, names: Sequence[str]) -> Iterator[Noted]:
        """What was given and is not used."""
        del dataset, names
        splits = {name: getattr(spec.data, name) for name, _ in spec.splits()}
        given = [name for name, split in splits.items() if "labels" in split.model_fields_set and split.is_labelled]
        if given:
            yield Noted(
                level="warning", code="labels_unused",
                message=f"An embedding learns from its teacher alone: the labels of {', '.join(given)} are not read.",
            )

    def hard_objective(self, objective: Objective | None = None) -> Objective:
        """Never asked: there are no labels."""
        raise AssertionError(objective)

    def teacher_objective(self, teacher: TrainTeacher) -> Objective:
        """Never asked: there are no labels."""
        raise AssertionError(teacher)

    def consensus(self, teacher: Tensor, shares: Tensor | None) -> Tensor:
        """Vectors (N, C); of an ensemble, their mean."""
        return Views(teacher, teacher, teacher_weights=shares).mean_outputs

    def validate(self, answered: Answered) -> dict[str, float]:
        """Mean cosine with the teacher's vectors, and the share of neighbours that are the teacher's."""
        if answered.teacher is None:
            return {}
        teacher = self.consensus(answered.teacher, answered.teacher_shares)
        return {
            "cosine": mean_cosine(answered.outputs, teacher),
            "agreement": shared_neighbours(similarities(answered.outputs), similarities(teacher)),
        }

    def score(self, answered: Answered, names: Sequence[str]) -> Scores:
        """Scores against the teacher, where there is one."""
        del names
        if answered.teacher is None:
            return Scores()
        teacher = self.consensus(answered.teacher, answered.teacher_shares)
        own, taught = similarities(answered.outputs), similarities(teacher)
        return Scores(
            cosine=mean_cosine(answered.outputs, teacher),
            mse_from_teacher=float(OBJECTIVES["mse"](Views(answered.outputs.double(), teacher.double()))),
            agreement=shared_neighbours(own, taught),
            similarity_correlation=rank_correlation(_pairs(own), _pairs(taught)),
        )


def mean_cosine(vectors: Tensor, teacher: Tensor) -> float:
    """Mean over samples of the cosine between vectors (N, C); 0 counts for a vector of length 0."""
    return float(functional.cosine_similarity(vectors.double(), teacher.double()).mean())


def similarities(vectors: Tensor) -> Tensor:
    """Cosines (M, M) between the vectors of at most MAX_COMPARED samples, evenly spaced, of (N, C)."""
    places = torch.linspace(0, len(vectors) - 1, min(len(vectors), MAX_COMPARED), device=vectors.device).round().long()
    directions = functional.normalize(vectors.index_select(0, places).float())
    return directions @ directions.T


def shared_neighbours(own: Tensor, taught: Tensor) -> float:
    """Share of each sample's nearest others, by similarities (M, M), that are the teacher's; 1 where there are none."""
    count = min(NUM_NEIGHBOURS, len(own) - 1)
    if count == 0:
        return 1.0
    own_nearest, taught_nearest = (_nearest(matrix, count) for matrix in (own, taught))
    return float((own_nearest & taught_nearest).double().sum() / (len(own) * count))


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's correlation of values (P,) with others; None where there are too few, or all the same."""
    if len(first) < 2:  # noqa: PLR2004 - one pair has no order
        return None
    ranks = torch.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(dim=1, keepdim=True)
    lengths = centred.norm(dim=1)
    return float(centred[0] @ centred[1] / lengths.prod()) if bool((lengths > 0).all()) else None


def _nearest(matrix: Tensor, count: int) -> Tensor:
    """Which samples (M, M) are among the `count` most similar to each, itself apart."""
    others = matrix.clone().fill_diagonal_(-torch.inf)
    nearest = torch.zeros_like(matrix, dtype=torch.bool)
    return nearest.scatter_(1, others.topk(count, dim=1).indices, value=True)


def _pairs(matrix: Tensor) -> Tensor:
    """What stands above the diagonal, (M (M - 1) / 2,)."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1, device=matrix.device)
    return matrix[rows, columns]


def _ranks(values: Tensor) -> Tensor:
    """Ranks (P,) from 1, float64; equal values share the mean of theirs."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2).double()[places]
    return ranks
