"""What a shard of soft labels is called: the digest of all that goes into it.

A key can be too narrow, and then labels are made twice; never too wide, or a job would learn from another's teacher.
So everything of the spec's sections is in it but what `LEFT_OUT` names, and a test knows every field there is.
Artifacts stand in it by the digests of their bytes. What the student is, what it minimises, how long and with which
seed it learns is no part of it.

A teacher that the job trains itself is known by its weights: jobs that trained the same one, bit for bit, share its
labels, and whatever else went into the training need not be told.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from stillhouse.contract.spec import Augmentation, JobSpec, TrainTeacher
from worker.engine.checkpoint import environment

# How rows are written: float16 below each row's maximum, or float32 as they are.
Form = Literal["narrow", "exact"]

FORMAT: Final = 1
NUM_SHARD_ROWS: Final = 8192
# Fixed, since the bits of a layer may depend on how many samples it sees at once; and small enough for a small
# network's activations to stay in the cache of a CPU. Shards are whole numbers of it.
CHUNK: Final = 128

# Fields of the spec's sections that stand in no key.
LEFT_OUT: Final[Mapping[str, frozenset[str]]] = MappingProxyType({
    "data": frozenset({
        "train", "validation", "test",  # the one that is labelled stands there as `split`
        "validation_fraction", "split_seed",  # the digest of the samples' ids tells what was drawn
        "num_classes", "label_names",  # a teacher's outputs are as many as its weights say, whatever they are called
        "normalization",  # the teacher's own, in effect, stands in `identity`
    }),
    "split": frozenset({"labels"}),  # in arrays of their own: the teacher does not see them
    "teacher": frozenset[str](),
    "augmentation": frozenset[str](),
})

_LABELS_APART: Final = frozenset({"idx", "npz"})
_ROOT: Final = Path(__file__).parents[3]
# The code that makes a label's bits: a change to any of it asks for new labels.
_CODE: Final = ("stillhouse/models", "worker/engine/data", "worker/engine/softlabels", "worker/engine/teachers")
_PACKAGES: Final = ("numpy", "onnxruntime", "pillow", "timm", "torchvision", "transformers")


@dataclass(frozen=True)
class LabelKey:
    """Everything that goes into one shard of soft labels."""

    owner: str
    teacher: Mapping[str, Any]  # its section of the spec, or the digest of the weights that the job trained
    identity: Mapping[str, Any]  # what the teacher is in effect: backend, precision, architecture, normalisation
    gives: str  # logits, probabilities or values
    data: Mapping[str, Any]  # the section's fields that matter, and the split that is read
    ids: str  # digest of the ids of the split's samples, in order
    split: str
    augmentation: Mapping[str, Any] | None
    view: int
    shard: int
    environment: Mapping[str, Any]  # device, processor, threads, version of torch
    code: str
    packages: Mapping[str, str]
    form: Form
    num_shard_rows: int = NUM_SHARD_ROWS
    chunk: int = CHUNK
    format: int = FORMAT

    @cached_property
    def text(self) -> str:
        """Canonical JSON of all of it. The shard's file repeats it."""
        content = {part.name: getattr(self, part.name) for part in fields(self)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """The key: 64 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def teacher_part(spec: JobSpec, digests: Mapping[str, str], trained: nn.Module | None) -> dict[str, Any]:
    """Who the teacher is: its section with digests for artifacts, or the digest of what the job trained."""
    if isinstance(spec.teacher, TrainTeacher):
        assert trained is not None  # noqa: S101 - labels are asked for when it has been trained
        return {"kind": spec.teacher.kind, "weights": digest_of_tensors(trained.state_dict())}
    section = spec.teacher.model_dump(mode="json", exclude=set(LEFT_OUT["teacher"]))
    return _with_digests(section, digests)


def data_part(spec: JobSpec, split: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Which samples there are and how they are read; `split` may have been drawn from the training split."""
    section = spec.data.model_dump(mode="json", exclude=set(LEFT_OUT["data"]))
    read = getattr(spec.data, split) or spec.data.train
    # In other formats the inputs may be all columns but that of the labels.
    left_out = LEFT_OUT["split"] if spec.data.kind in _LABELS_APART else frozenset[str]()
    part = section | {"split": read.model_dump(mode="json", exclude=set(left_out))}
    return _with_digests(part, digests)


def augmentation_part(augmentation: Augmentation | None) -> dict[str, Any] | None:
    """How the samples are changed; its seed is in it."""
    if augmentation is None:
        return None
    return augmentation.model_dump(mode="json", exclude=set(LEFT_OUT["augmentation"]))


def environment_part(device: str, num_threads: int) -> dict[str, Any]:
    """What bits depend on beside spec and code.

    Threads too: measured on the CPU, a linear layer of 100 outputs over 128 samples differs in its last bits between
    one thread and four.
    """
    kind = device.partition(":")[0]
    name = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    return environment(device) | {"device": name, "threads": num_threads}


def digest_of_ids(ids: Tensor) -> str:
    """Digest of int64 numbers."""
    return hashlib.sha256(ids.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _with_digests(part: dict[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """The same, with the digest of its bytes in the place of every artifact's id."""

    def replaced(value: Any) -> Any:  # noqa: ANN401 - JSON in, JSON out
        if isinstance(value, dict):
            return {name: replaced(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [replaced(inner) for inner in value]
        # An object, so that no string of the spec can be taken for a digest.
        return {"sha256": digests[value]} if isinstance(value, str) and value in digests else value

    return {name: replaced(value) for name, value in part.items()}


def _digest_of_code() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for folder in _CODE for path in (_ROOT / folder).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_ROOT)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # this worker can do without
            continue
    return found


# Read once, when the process starts: what it has imported does not change when the files do.
CODE: Final = _digest_of_code()
PACKAGES: Final = _versions()
