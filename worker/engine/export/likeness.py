"""How alike an exported file and the trained model answer."""

from collections.abc import Mapping

from torch import Tensor

from stillhouse.contract.report import Parity
from stillhouse.contract.spec import Task
from stillhouse.models.answers import decide


def compare(name: str, task: Task, outputs: Tensor, samples: Mapping[str, Tensor]) -> Parity:
    """Outputs (N, C) against the trained model's `outputs`: the numbers, and what the task decides by them.

    Where the samples at `places` have `labels`, how often the decisions are right is compared too.
    """
    expected = samples["outputs"]
    decided, wanted = decide(task, outputs), decide(task, expected)
    return Parity(
        format=name,
        num_samples=len(expected),
        max_output_difference=(outputs - expected).abs().max().item(),
        same_decisions=None if decided is None or wanted is None else _share(decided == wanted),
        accuracy_difference=None if decided is None or wanted is None else _difference(decided, wanted, samples),
    )


def _difference(decided: Tensor, wanted: Tensor, samples: Mapping[str, Tensor]) -> float | None:
    """Of the shares of decisions that are right."""
    if not len(samples.get("labels", ())):
        return None
    places, labels = samples["places"], samples["labels"].to(decided.dtype)
    return abs(_share(decided[places] == labels) - _share(wanted[places] == labels))


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
