"""The MNIST job of the examples, for the benchmarks."""

import gzip
from collections.abc import Iterable
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


def write_tensors(folder: Path) -> None:
    """The training split as a ready-made file of tensors, with the teacher's logits, for hand-written loops."""
    images = np.frombuffer(gzip.decompress(FILES[0].read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(gzip.decompress(FILES[1].read_bytes()), np.uint8, offset=8)
    inputs = (torch.tensor(images) / 255 - MEAN) / STD
    teacher = load_checkpoint(TEACHER).model.eval()
    with torch.inference_mode():
        logits = torch.cat([teacher(batch) for batch in inputs.split(1000)])
    save_file(
        {"inputs": inputs, "labels": torch.tensor(labels, dtype=torch.long), "teacher": logits.clone()},
        folder / "train.safetensors",
    )
    (folder / TEACHER.name).write_bytes(TEACHER.read_bytes())
