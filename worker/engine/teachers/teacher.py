"""A model to learn from."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from stillhouse.contract.spec import Architecture
from stillhouse.models import count_parameters, describe, saved_bytes
from stillhouse.models.preprocessing import Preprocessing

# Logits tell more than probabilities; values are no distribution at all: of a regression or an embedding.
Gives = Literal["logits", "probabilities", "values"]


class Teacher(Protocol):
    """Frozen, with its own way to read raw samples."""

    @property
    def description(self) -> str:
        """In short, for the report."""

    @property
    def num_outputs(self) -> int:
        """Width of an answer."""

    @property
    def gives(self) -> Gives:
        """What the answers are."""

    @property
    def module(self) -> nn.Module | None:
        """The network, whose layers can be looked at; None where there is none."""

    @property
    def architecture(self) -> Architecture | None:
        """What the network is; None where there is none, or another framework's."""

    @property
    def shares(self) -> Tensor | None:
        """Shares (M,) of an ensemble's members; None where one teacher answers."""

    @property
    def num_parameters(self) -> int | None:
        """Number of values that were learned; None where nobody knows."""

    @property
    def num_bytes(self) -> int | None:
        """Size on disk; None where nobody knows."""

    @property
    def identity(self) -> dict[str, Any]:
        """Backend, precision, architecture, how it reads samples: what answers depend on beside section and files.

        Plain JSON, and a part of the keys of its soft labels.
        """

    def timed_pass(self, arranged: Tensor, threads: int) -> Callable[[], object] | None:
        """One pass of raw arranged samples (N, ...) on the CPU, ready to be timed; None where nothing is computed."""

    def answer(self, arranged: Tensor, given: Tensor | None = None) -> Tensor:
        """Outputs (N, num_outputs), or (N, M, num_outputs) of M members, float32, of raw arranged samples (N, ...).

        `given` (N, ...) is what the data themselves say softly of these samples, where they do.
        """


@dataclass(frozen=True)
class NetworkTeacher:
    """A torch module in evaluation mode."""

    module: nn.Module
    architecture: Architecture  # complete
    preprocessing: Preprocessing
    gives: Gives = "logits"
    shares: None = None
    remarks: Sequence[str] = ()  # what reading its weights showed

    @property
    def description(self) -> str:
        """In short, for the report."""
        return describe(self.architecture, self.architecture.input_shape or (), self.num_outputs)

    @property
    def num_outputs(self) -> int:
        """Width of an answer."""
        return self.architecture.num_classes or 0

    @property
    def num_parameters(self) -> int:
        """Number of trainable values."""
        return count_parameters(self.module)

    @property
    def num_bytes(self) -> int:
        """Size of the weights as safetensors."""
        return saved_bytes(self.module)

    @property
    def identity(self) -> dict[str, Any]:
        """A complete architecture, in float32, that reads as its preprocessing says."""
        return {
            "backend": "torch", "precision": "float32", "architecture": self.architecture.model_dump(mode="json"),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
        }

    def timed_pass(self, arranged: Tensor, threads: int) -> Callable[[], object]:
        """A copy's forward pass; torch's threads are the caller's."""
        del threads
        twin, inputs = copy.deepcopy(self.module).cpu().eval(), self.preprocessing.normalize(arranged.cpu())
        return lambda: twin(inputs)

    @torch.no_grad()
    def answer(self, arranged: Tensor, given: Tensor | None = None) -> Tensor:
        """Outputs (N, num_outputs) of raw arranged samples; what the data say of them makes no difference."""
        del given
        outputs: Tensor = self.module(self.preprocessing.normalize(arranged))
        return outputs
