"""Checkpoints to resume from: everything or nothing, in one safetensors file that is renamed into place."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stillhouse.contract.events import CheckpointSaved
from stillhouse.contract.status import Phase
from worker.engine.profile import Journey
from worker.engine.ranks import ALONE, Ranks
from worker.engine.state import Facts, Tensors, TrainingState

FORMAT = 2
FILE = "checkpoint.safetensors"
METADATA_KEY = "stillhouse.checkpoint"
# Larger soft labels are made again on resuming, by the same code over the same chunks, so the bits are the same.
MAX_SOFT_LABEL_BYTES = 64 * 1024**2


class Snapshot:
    """What an earlier attempt left; an empty one for a first attempt."""

    def __init__(self, facts: Facts, tensors: Tensors) -> None:
        self.facts = facts
        self.soft_labels = _under("soft_labels", tensors)
        self._tensors = tensors

    def training(self, phase: Phase) -> tuple[Facts, Tensors] | None:
        """The state of that phase's training, if it had begun."""
        facts = self.facts.get("trainings", {}).get(phase)
        return None if facts is None else (facts, _under(phase, self._tensors))

    @property
    def expected(self) -> dict[Phase, float]:
        """The earlier attempt's scale of progress, in seconds."""
        return {Phase(name): seconds for name, seconds in self.facts["expected"].items()}

    @property
    def numerics(self) -> dict[str, Any] | None:
        """How the earlier attempt computed, where it got so far."""
        return self.facts.get("numerics")

    @property
    def spent(self) -> dict[Phase, float]:
        """What each phase had taken, in seconds."""
        return {Phase(name): seconds for name, seconds in self.facts["spent"].items()}

    @property
    def environment(self) -> dict[str, Any] | None:
        """What the bits of the earlier attempt depended on."""
        return self.facts.get("environment")


def read_snapshot(path: Path) -> Snapshot | None:
    """What the checkpoint holds; None if it is damaged or of another version of the format."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            # Cloned into memory of torch's own: kernels may add up in another order at another alignment.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, ValueError, OSError):
        return None
    return Snapshot(facts, tensors) if facts.get("format") == FORMAT else None


class Keeper:
    """Holds what the job must not lose, and writes it down."""

    def __init__(self, scratch: Path, journey: Journey, *, seconds: float, device: str, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.trainings: dict[Phase, TrainingState] = {}
        self.soft_labels: Tensors = {}
        self.numerics: dict[str, str] | None = None
        self._path = scratch / FILE
        self._journey = journey
        self._seconds = seconds
        self._environment = environment(device)
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, phase: Phase, step: int) -> CheckpointSaved:
        """Write everything; what stood there before stays whole until the new file is."""
        dumped = self._dump()  # by every process: each has a part
        if self._ranks.is_first:
            self._write(*dumped)
        self._saved = time.monotonic()
        state = self.trainings.get(phase)
        told = {} if state is None else {
            "metrics": state.last_scores(), "evaluated_step": state.evaluated_step or None,
            "best_step": state.selected_step,
        }
        return CheckpointSaved(phase=phase, step=step, file=FILE, **told)

    def _dump(self) -> tuple[Facts, Tensors]:
        facts: Facts = {
            "format": FORMAT, "environment": self._environment, "trainings": {},
            "numerics": self.numerics,
            "expected": self._journey.expected, "spent": self._journey.seconds(),
        }
        tensors: Tensors = {}
        if sum(labels.nbytes for labels in self.soft_labels.values()) <= MAX_SOFT_LABEL_BYTES:
            tensors |= _prefixed("soft_labels", self.soft_labels)
        for phase, state in self.trainings.items():
            facts["trainings"][phase], of_training = state.dump()
            tensors |= _prefixed(phase, of_training)
        return facts, tensors

    def _write(self, facts: Facts, tensors: Tensors) -> None:
        partial = self._path.with_suffix(".partial")
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(flat, partial, metadata={METADATA_KEY: json.dumps(facts)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self._path)


def environment(device: str) -> dict[str, Any]:
    """What the bits of a training depend on, besides spec and inputs."""
    return {
        "torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(), "device": device,
    }


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Tensors) -> Tensors:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


