"""Train the teacher of this example with the project's own engine, and score it on the test images.

`python -m examples.mnist.train_teacher` writes teacher.safetensors beside this file.
"""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stillhouse.contract.events import Measured
from stillhouse.contract.spec import (
    AdamW,
    Augmentation,
    Cnn,
    IdxData,
    IdxSplit,
    JobSpec,
    Mlp,
    OneCycle,
    Shift,
    Training,
    TrainTeacher,
)
from stillhouse.contract.status import Phase
from stillhouse.models import save_checkpoint
from worker.engine.pipeline import Job

HERE = Path(__file__).resolve().parent
SEED = 0
IMAGES, LABELS = "art_00000000000000images", "art_00000000000000labels"
FILES = {IMAGES: HERE / "train-images-idx3-ubyte.gz", LABELS: HERE / "train-labels-idx1-ubyte.gz"}

SPEC = JobSpec(
    teacher=TrainTeacher(
        # Small where the picture is large, so that it labels 60,000 images on a CPU in seconds.
        architecture=Cnn(channels=[16, 32, 64, 128]),
        training=Training(
            epochs=20,
            batch_size=128,
            optimizer=AdamW(learning_rate=4e-3, weight_decay=0.02),
            schedule=OneCycle(),
            augmentation=Augmentation(transforms=[Shift(pixels=2)]),
        ),
    ),
    student=Mlp(hidden=[64]),
    data=IdxData(train=IdxSplit(inputs=IMAGES, labels=LABELS)),
    seed=SEED,
)


def main() -> None:
    """Train up to the end of the teacher's phase; keep the weights that the validation split selected."""
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(SPEC, FILES, Path(scratch), device="cpu", requested=lambda: None)
        for event in job.train(None):
            if isinstance(event, Measured) and "validation.accuracy" in event.values:
                print(f"step {event.step}: {event.values['validation.accuracy']:.2%} on validation", flush=True)
            state = job.keeper.trainings.get(Phase.TEACHER)
            if state is not None and state.ended:
                break
    teacher = job.trained_teacher()
    path = HERE / "teacher.safetensors"
    save_checkpoint(path, teacher.module, teacher.architecture, teacher.preprocessing.normalization)
    raw = _read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    with torch.inference_mode():
        answers = torch.cat([teacher.module(part).argmax(1) for part in teacher.preprocessing(raw).split(500)])
    accuracy = float((answers.numpy() == _read("t10k-labels-idx1-ubyte.gz", 8)).mean())
    print(f"{path.name}: {accuracy:.2%} of the test images, {path.stat().st_size:,} bytes")


def _read(name: str, offset: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(gzip.open(HERE / name).read(), np.uint8, offset=offset).copy()


if __name__ == "__main__":
    main()
