"""MNIST, its trained teacher and the jobs that the benchmarks run on them."""

import gzip
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from stillhouse import Client
from stillhouse.contract.spec import JobSpec
from stillhouse.models import load_checkpoint

EXAMPLE = Path(__file__).parents[1] / "examples" / "mnist"
TEACHER = EXAMPLE / "teacher.safetensors"
FILES = [
    EXAMPLE / f"{name}-ubyte.gz"
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]
MEAN, STD = 0.1307, 0.3081
IMAGES_HEADER, LABELS_HEADER = 16, 8  # bytes of an IDX file before its values
LABELLING_BATCH = 128


def upload_all(client: Client, files: Iterable[Path]) -> dict[str, str]:
    """Name of each file -> id of its artifact."""
    return {
        file.name: client.upload(file, kind="teacher" if file == TEACHER else "data", name=file.name).id
        for file in files
    }


def job_spec(artifacts: dict[str, str], **sections: Any) -> JobSpec:  # noqa: ANN401 - sections of the spec as JSON
    """The example's job: the trained teacher into 784-64-10."""
    train_images, train_labels, test_images, test_labels = (artifacts[file.name] for file in FILES)
    return JobSpec.model_validate({
        "teacher": {"kind": "checkpoint", "artifact": artifacts[TEACHER.name]},
        "student": {"kind": "mlp", "hidden": [64]},
        "data": {
            "kind": "idx",
            "train": {"inputs": train_images, "labels": train_labels},
            "test": {"inputs": test_images, "labels": test_labels},
        },
        **sections,
    })


def short_job_spec(
    artifacts: dict[str, str], files: Sequence[Path], **sections: Any  # noqa: ANN401 - sections of the spec as JSON
) -> JobSpec:
    """A job without a test split and control on the two files that `write_first` made."""
    images, labels = (artifacts[file.name] for file in files)
    return JobSpec.model_validate({
        "teacher": {"kind": "checkpoint", "artifact": artifacts[TEACHER.name]},
        "data": {"kind": "idx", "train": {"inputs": images, "labels": labels}},
        "export": {"formats": ["safetensors"]},
        "control": False,
        **sections,
    })


def write_first(folder: Path, count: int) -> list[Path]:
    """The first so many images of the training split and their labels, as IDX files of their own."""
    images, labels = (gzip.decompress(file.read_bytes()) for file in FILES[:2])
    paths = [folder / f"first-{count}-images", folder / f"first-{count}-labels"]
    paths[0].write_bytes(images[:4] + struct.pack(">I", count) + images[8:IMAGES_HEADER + count * 28 * 28])
    paths[1].write_bytes(labels[:4] + struct.pack(">I", count) + labels[LABELS_HEADER:LABELS_HEADER + count])
    return paths


def write_tensors(folder: Path, count: int = 60_000) -> None:
    """The first samples of the training split as ready tensors, with the teacher's logits, for hand-written loops."""
    images = np.frombuffer(gzip.decompress(FILES[0].read_bytes()), np.uint8, offset=IMAGES_HEADER)
    labels = np.frombuffer(gzip.decompress(FILES[1].read_bytes()), np.uint8, offset=LABELS_HEADER)
    inputs = (torch.tensor(images.reshape(-1, 1, 28, 28)[:count]) / 255 - MEAN) / STD
    teacher = load_checkpoint(TEACHER).model.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        logits = torch.cat([teacher(batch) for batch in inputs.split(LABELLING_BATCH)])
    save_file(
        {"inputs": inputs, "labels": torch.tensor(labels[:count], dtype=torch.long), "teacher": logits.clone()},
        folder / "train.safetensors",
    )
    (folder / TEACHER.name).write_bytes(TEACHER.read_bytes())
