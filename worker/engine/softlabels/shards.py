"""Soft labels as a file holds them: a shard is what the teacher says of consecutive samples of a split, in one view.

Logits z are held as float16 of z - max(z), with the float32 maximum of each row beside them (of each member's row, of
an ensemble), and read back as their float32 sum. The largest entry comes back exactly. Another comes back within
`2**-11 * (max(z) - z) + 2**-24 * (max(z) - z + 2 * max|z|)`, or 2**-25 more where it is closer to the maximum than
6e-5; what lies more than 65,504 below the maximum is held at 65,504 below. Teachers that give probabilities answer in
their logarithms and are held alike, so the floor of a probability is the teacher's own. Outputs of a regression or an
embedding, and splits that scores are computed on, are held as float32, exactly.

All classes are held. Top-k with a tail bucket, for vocabularies of a language model, is not written yet.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worker.engine.softlabels.keys import Form, LabelKey

SUFFIX: Final = ".safetensors"
METADATA_KEY: Final = "stillhouse.soft_labels"
_LOWEST: Final = torch.finfo(torch.float16).min


@dataclass(frozen=True)
class Rows:
    """Answers (N, C), or (N, M, C) of an ensemble, as they are held."""

    held: Tensor  # float16 below the row's maximum; float32 as they are where there is no maximum
    largest: Tensor | None = None  # (N,), or (N, M)

    def __len__(self) -> int:
        return len(self.held)

    def widen(self) -> Tensor:
        """The answers in float32, a new tensor."""
        if self.largest is None:
            return self.held.clone()
        return self.held.float().add_(self.largest[..., None])

    def select(self, places: Tensor) -> "Rows":
        """The rows at these places (int64)."""
        largest = None if self.largest is None else self.largest.index_select(0, places)
        return Rows(self.held.index_select(0, places), largest)

    @property
    def shape(self) -> torch.Size:
        """Shape of one answer."""
        return self.held.shape[1:]


def hold(answers: Tensor, form: Form) -> Rows:
    """Finite answers (N, ..., C) as they are to be held."""
    answers = answers.float()
    if form == "exact":
        return Rows(answers)
    largest = answers.amax(dim=-1)
    return Rows((answers - largest[..., None]).clamp_(min=_LOWEST).half(), largest)


def join(parts: Sequence[Rows]) -> Rows:
    """The rows one after the other."""
    largest = [part.largest for part in parts if part.largest is not None]
    return Rows(torch.cat([part.held for part in parts]), torch.cat(largest) if largest else None)


def write_shard(folder: Path, rows: Rows, key: LabelKey) -> Path:
    """The shard's file, named by its key; it appears there whole or not at all."""
    path = folder / f"{key.digest}{SUFFIX}"
    partial = path.with_suffix(f".{os.getpid()}.partial")  # another process may write the same
    tensors = {"held": rows.held} | ({} if rows.largest is None else {"largest": rows.largest})
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, {METADATA_KEY: key.text})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def read_shard(path: Path, key: LabelKey, num_rows: int) -> Rows | None:
    """The shard, mapped from its file; None unless it is whole and repeats all that went into its key."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(METADATA_KEY) != key.text:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        return None
    return _checked(tensors.get("held"), tensors.get("largest"), key, num_rows)


def _checked(held: Tensor | None, largest: Tensor | None, key: LabelKey, num_rows: int) -> Rows | None:
    if held is None or len(held) != num_rows or (largest is None) != (key.form == "exact"):
        return None
    if largest is not None and largest.shape != held.shape[:-1]:
        return None
    return Rows(held, largest)
