"""Train the Fashion-MNIST teacher with the project's own engine: `python -m benchmarks.fashion_teacher`.

Writes teachers/fashion.safetensors: the weights after the last epoch. The recipe was not searched; validation says how
it went on, and the test images are looked at once, at the end.
"""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.fashion import TEACHER, splits, write_splits
from benchmarks.idx import Digits
from benchmarks.results import publish
from stillhouse.contract.events import Measured
from stillhouse.contract.spec import (
    AdamW,
    Augmentation,
    Cnn,
    CrossEntropy,
    Erasing,
    Flip,
    JobSpec,
    Objective,
    OneCycle,
    Shift,
    Training,
    TrainTeacher,
)
from stillhouse.contract.status import Phase
from stillhouse.models import save_checkpoint
from worker.engine.flops import count_flops
from worker.engine.pipeline import Job
from worker.engine.teachers import NetworkTeacher

SEED = 0
RECIPE = TrainTeacher(
    architecture=Cnn(channels=[32, 64, 128, 256], dropout=0.2),
    training=Training(
        epochs=20,
        batch_size=128,
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.05),
        schedule=OneCycle(),
        precision="bfloat16",
        augmentation=Augmentation(transforms=[Flip(), Shift(pixels=2), Erasing(probability=0.5)]),
    ),
)


def main() -> None:
    """Train, keep the weights of the last epoch, score."""
    found = splits()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data, inputs = write_splits(Path(folder), {name: found[name] for name in ("train", "validation")})
        # A student that learns from the labels alone: it is never trained here.
        spec = JobSpec(
            teacher=RECIPE, student=Cnn(channels=[8]), data=data, objective=Objective(terms=[CrossEntropy()]),
            training=Training(epochs=1, precision="bfloat16"), control=False, seed=SEED,
        )
        job = _train(Job(spec, inputs, Path(folder), device="cpu", requested=lambda: None))
    seconds = time.monotonic() - began
    teacher = job.trained_teacher()
    teacher.module.load_state_dict(job.keeper.trainings[Phase.TEACHER].evaluated_model.state_dict())
    TEACHER.parent.mkdir(exist_ok=True)
    save_checkpoint(TEACHER, teacher.module, teacher.architecture, teacher.preprocessing.normalization)
    publish("fashion_teacher", {
        "what": "Fashion-MNIST teacher, weights after the last epoch; 50,000 images to learn from",
        "seed": SEED,
        "validation_accuracy": accuracy(teacher, found["validation"]),
        "test_accuracy": accuracy(teacher, found["test"]),
        "bytes": TEACHER.stat().st_size,
        "macs": count_flops(teacher.architecture) // 2,
        "seconds": seconds,
        "recipe": RECIPE.model_dump(mode="json", exclude_none=True),
    })


def _train(job: Job) -> Job:
    """Up to the end of the teacher's own training."""
    for event in job.train(None):
        if isinstance(event, Measured) and "validation.accuracy" in event.values:
            print(f"step {event.step}: {event.values['validation.accuracy']:.2%} on validation", flush=True)
        state = job.keeper.trainings.get(Phase.TEACHER)
        if state is not None and state.ended:
            break
    return job


def accuracy(teacher: NetworkTeacher, digits: Digits) -> float:
    """Share of the images that the teacher is right about."""
    images = torch.from_numpy(digits.images.copy())
    with torch.inference_mode():
        answers = torch.cat([teacher.module(part).argmax(1) for part in teacher.preprocessing(images).split(500)])
    return float((answers.numpy() == digits.labels).mean())


if __name__ == "__main__":
    main()
