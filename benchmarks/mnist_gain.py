"""What distillation gains on MNIST: 784-64-10 taught, and the same student on the labels alone, over 5 seeds.

The defaults of the job spec are the recipe. They were chosen on validation splits; the test split is only reported.
"""

import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.mnist import FILES, TEACHER, job_spec
from benchmarks.results import publish
from stillhouse.contract.report import Report
from stillhouse.contract.spec import JobSpec
from worker.engine.comparison import compare
from worker.engine.pipeline import Job
from worker.engine.softlabels import LabelFolder

SEEDS = range(5)
SUBJECTS = ("teacher", "student", "control")


def train(spec: JobSpec, inputs: dict[str, Path], labels: LabelFolder) -> Report:
    """One job of the engine, but for the export. The teacher's answers do not depend on the seed, and are kept.

    Training so small a student takes one thread, whatever the machine has.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(spec, inputs, Path(scratch), device="cpu", requested=lambda: None, store=labels)
        for _ in job.train(None):
            pass
        return compare(spec, job.prepared, job.teacher, job.keeper, "cpu").report(job.journey.seconds())


def accuracies(report: Report, split: str) -> dict[str, float]:
    """Accuracy of each model, as a share, by name."""
    found = {}
    for name in SUBJECTS:
        subject = report.subject(name)
        assert subject is not None
        scores = subject.scores if split == "test" else subject.validation_scores
        assert scores is not None
        assert scores.accuracy is not None
        found[name] = scores.accuracy
    return found


def gain(by_seed: list[dict[str, float]]) -> dict[str, float]:
    """Mean paired gain in percentage points, its standard error, and their ratio."""
    gains = [100 * (found["student"] - found["control"]) for found in by_seed]
    error = stdev(gains) / len(gains) ** 0.5
    return {"mean_gain": mean(gains), "standard_error": error, "ratio": mean(gains) / error}


def main() -> None:
    """Train all seeds and publish."""
    ids = {file.name: f"art_{number:020d}" for number, file in enumerate([TEACHER, *FILES])}
    inputs = {ids[file.name]: file for file in [TEACHER, *FILES]}
    with tempfile.TemporaryDirectory() as folder:
        labels = LabelFolder(Path(folder), inputs)
        reports = [train(job_spec(ids, seed=seed), inputs, labels) for seed in SEEDS]
    test = [accuracies(report, "test") for report in reports]
    spec = job_spec(ids)
    recipe: dict[str, Any] = {
        "objective": spec.effective_objective.model_dump(mode="json"),
        "training": spec.effective_training.model_dump(mode="json", exclude_none=True),
    }
    publish("mnist_gain", {
        "what": "MNIST 784-64-10, distilled and alone; accuracy on the 10,000 test images at the step that the "
        "validation split selected; gain in percentage points, paired by seed",
        "seeds": list(SEEDS),
        "teacher": test[0]["teacher"],
        "distilled": [found["student"] for found in test],
        "control": [found["control"] for found in test],
        **gain(test),
        "on_validation": gain([accuracies(report, "validation") for report in reports]),
        "seconds_per_training": mean(report.phase_seconds["distilling"] for report in reports),
        "threads": torch.get_num_threads(),
        "recipe": recipe,
    })


if __name__ == "__main__":
    main()
