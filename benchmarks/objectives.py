"""Every objective for classification at its defaults, on Fashion-MNIST: `python -m benchmarks.objectives`.

One teacher, one student, seeds that all objectives share: the same first weights, the same batches, the same views of
the images. A subset of the training images, so that all of it takes about two hours of one core. The weights are those
after the last epoch: nothing was selected. The teacher knows six times as many images as the students see, so it has
more to tell here than on all of them.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Final

import torch

from benchmarks.fashion import AUGMENTATION, TEACHER, splits, write_splits
from benchmarks.kept import WORK, Kept, Result, artifact_id
from benchmarks.results import publish
from stillhouse.contract.events import PhaseStarted
from stillhouse.contract.spec import (
    At,
    AutoSoftLabels,
    CheckpointTeacher,
    Cka,
    Cnn,
    CosineDistance,
    Crd,
    CrossEntropy,
    Dist,
    Dkd,
    Fitnet,
    IdxData,
    JobSpec,
    Js,
    Kl,
    LayerPair,
    Mse,
    Nkd,
    Nst,
    Objective,
    Pkt,
    ReverseKl,
    Review,
    Rkd,
    Sp,
    Term,
    Training,
    Ttm,
    Vid,
    ViewedSoftLabels,
    Wttm,
)
from stillhouse.contract.status import Phase
from stillhouse.models import complete, load_checkpoint
from worker.engine.course import predict
from worker.engine.data import Part
from worker.engine.feed import normalized_chunks
from worker.engine.flops import count_flops
from worker.engine.numerics import Numerics
from worker.engine.pipeline import Job
from worker.engine.softlabels import LabelFolder

SEEDS: Final = range(3)
NUM_TRAIN, EPOCHS = 8_000, 10
STUDENT: Final = Cnn(channels=[8, 16, 32, 64])
# As in the objective that a spec gets when it names none.
HARD: Final = CrossEntropy(weight=0.5)
CONTROL, BASELINE = "control", "kl"
SPLITS = ("validation", "test")


def _alike(*paths: str) -> list[LayerPair]:
    """Layers that have the same place in teacher and student."""
    return [LayerPair(student=path, teacher=path) for path in paths]


# Outputs of stages 2 to 4, before their pooling, and the features that the last layer reads.
MIDDLE, LAST, POOLED = _alike("body.6"), _alike("body.14"), _alike("body.17")
DEEP, STAGES = _alike("body.10", "body.14"), _alike("body.6", "body.10", "body.14")
OBJECTIVES: Final[Mapping[str, Sequence[Term]]] = {
    CONTROL: [],
    BASELINE: [Kl()],
    "kl, standardize": [Kl(standardize=True)],
    "reverse_kl": [ReverseKl()],
    "js": [Js()],
    "mse": [Mse()],
    "dkd": [Dkd()],
    "dist": [Dist()],
    "nkd": [Nkd()],
    "ttm": [Ttm()],
    "wttm": [Wttm()],
    "fitnet": [Fitnet(pairs=MIDDLE)],
    "at": [At(pairs=STAGES)],
    "nst": [Nst(pairs=LAST)],
    "vid": [Vid(pairs=STAGES)],
    "review": [Review(pairs=DEEP)],
    "crd": [Crd(pairs=POOLED)],
    "rkd": [Rkd(pairs=POOLED)],
    "sp": [Sp(pairs=LAST)],
    "pkt": [Pkt(pairs=POOLED)],
    "cka": [Cka(pairs=POOLED)],
    "cosine": [CosineDistance(pairs=POOLED)],
}
# Published weights, where the default is another, and others that were tried; on two seeds.
SEEDS_OF_WEIGHTS: Final = range(2)
_TRIED: Final = {
    "mse": (0.1, 0.01), "dkd": (0.1, 0.01), "fitnet": (100.0, 10.0), "at": (1000.0,), "nst": (50.0,),
    "crd": (0.8, 0.08), "rkd": (1.0,), "sp": (3000.0,),
}
WEIGHTS: Final[Mapping[str, Sequence[Term]]] = {
    f"{name}, weight {weight:g}": [term.model_copy(update={"weight": weight}) for term in OBJECTIVES[name]]
    for name, weights in _TRIED.items() for weight in weights
} | {"dkd, as on ImageNet": [Dkd(beta=0.5, temperature=1.0)]}


def job_spec(terms: Sequence[Term], data: IdxData, seed: int) -> JobSpec:
    """The term beside the true labels. Stored answers are of as many views as there are epochs: the same images."""
    objective = Objective(terms=[*terms, HARD])
    stores = objective.needs_teacher and not objective.needs_features
    return JobSpec(
        teacher=CheckpointTeacher(artifact=artifact_id(TEACHER)),
        student=STUDENT,
        data=data,
        objective=objective,
        training=Training(epochs=EPOCHS, evaluate_every=EPOCHS, precision="float32", augmentation=AUGMENTATION),
        soft_labels=ViewedSoftLabels(views=EPOCHS) if stores else AutoSoftLabels(),
        control=False,
        seed=seed,
    )


class Trainer:
    """Trains students, or takes what it trained before."""

    def __init__(self, kept: Kept, data: IdxData, inputs: Mapping[str, Path]) -> None:
        self.data, self._kept, self._inputs = data, kept, inputs
        self.found: dict[str, list[Result]] = {}  # by objective, a result for each seed

    def train(self, objectives: Mapping[str, Sequence[Term]], seed: int) -> None:
        """A student by each objective."""
        for name, terms in objectives.items():
            spec = job_spec(terms, self.data, seed)
            self.found.setdefault(name, []).append(self._kept.result(spec, partial(self._train, spec)))
            print(seed, name, self.found[name][-1], flush=True)

    def _train(self, spec: JobSpec, _: Path) -> Result:
        """Accuracy and agreement in percent on both splits, and the seconds of processor time that training took."""
        began = 0.0
        with tempfile.TemporaryDirectory() as scratch:
            store = LabelFolder(self._kept.folder / "soft_labels", self._inputs)
            job = Job(spec, self._inputs, Path(scratch), device="cpu", requested=lambda: None, store=store)
            for event in job.train(None):
                if isinstance(event, PhaseStarted) and event.phase == Phase.DISTILLING:
                    began = time.process_time()
        seconds = time.process_time() - began
        parts = {part.name: part for part in job.prepared.dataset.parts}
        return {"seconds": seconds, **{name: _score(job, parts[name]) for name in SPLITS}}


def _score(job: Job, part: Part) -> dict[str, float]:
    model = job.keeper.trainings[Phase.DISTILLING].evaluated_model
    inputs = normalized_chunks(part, job.prepared.dataset.preprocessing, "cpu")
    answers = predict(model, inputs, Numerics("float32", "channels_last", "cpu")).argmax(1)
    taught, labels = job.keeper.soft_labels[part.name].argmax(1), part.labels
    assert labels is not None
    return {
        "accuracy": 100 * float(answers.eq(labels).double().mean()),
        "agreement": 100 * float(answers.eq(taught).double().mean()),
    }


def figures(found: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """The table, of objectives whose seeds are all there."""
    table = {name: _row(results) for name, results in found.items()}
    gaps = {against: _gaps(found, against) for against in (BASELINE, CONTROL)}
    of_weights = {name: _gaps(found, name.partition(",")[0])[name] for name in found if name in WEIGHTS}
    return {
        "objectives": table,
        "gap_to_kl": gaps[BASELINE],
        "gap_to_control": gaps[CONTROL],
        "gap_to_default_weight": of_weights,
        "differ_from_kl": [name for name, gap in gaps[BASELINE].items() if gap["is_told_apart"]],
        "differ_from_control": [name for name, gap in gaps[CONTROL].items() if gap["is_told_apart"]],
    }


def _row(results: Sequence[Result]) -> dict[str, Any]:
    columns = {
        f"{split}_{what}": [result[split][what] for result in results]
        for split in SPLITS for what in ("accuracy", "agreement")
    }
    spread = {name: {"mean": mean(values), "standard_error": _error(values)} for name, values in columns.items()}
    return {**spread, "by_seed": columns, "seconds": mean(result["seconds"] for result in results)}


def _gaps(found: Mapping[str, Sequence[Result]], against: str) -> dict[str, dict[str, Any]]:
    """Validation accuracy over that of another objective in points, paired by the seeds that both have.

    Two are told apart where the gap is more than twice its standard error. A standard error of so few seeds is itself
    a matter of luck, so it counts for no less than the median over all objectives at their defaults.
    """
    paired = {
        name: [
            one["validation"]["accuracy"] - other["validation"]["accuracy"]
            for one, other in zip(results, found[against], strict=False)
        ]
        for name, results in found.items() if name != against
    }
    errors = {name: _error(gaps) for name, gaps in paired.items()}
    usual = median(error for name, error in errors.items() if name not in WEIGHTS)
    return {
        name: {
            "mean": mean(gaps), "standard_error": errors[name], "usual_standard_error": usual,
            "is_told_apart": abs(mean(gaps)) > 2 * max(errors[name], usual),
        }
        for name, gaps in paired.items()
    }


def _error(values: Sequence[float]) -> float:
    return float(stdev(values) / len(values) ** 0.5)


def main() -> None:
    """Train at the defaults, publish, train with other weights, publish again."""
    kept = Kept(WORK / "objectives")
    with tempfile.TemporaryDirectory() as folder:
        data, inputs = write_splits(Path(folder), splits(NUM_TRAIN))
        inputs[artifact_id(TEACHER)] = TEACHER
        trainer = Trainer(kept, data, inputs)
        for seed in SEEDS:
            trainer.train(OBJECTIVES, seed)
        _publish(trainer)
        for seed in SEEDS_OF_WEIGHTS:
            trainer.train(WEIGHTS, seed)
        _publish(trainer)


def _publish(trainer: Trainer) -> None:
    publish("objectives", {**_facts(trainer.data), "seeds": list(SEEDS), **figures(trainer.found)})


def _facts(data: IdxData) -> dict[str, Any]:
    teacher = load_checkpoint(TEACHER, input_shape=(1, 28, 28), num_classes=10).architecture
    macs = {
        "teacher": count_flops(teacher) // 2,
        "student": count_flops(complete(STUDENT, input_shape=(1, 28, 28), num_classes=10)) // 2,
    }
    return {
        "what": f"Fashion-MNIST, a subset: {NUM_TRAIN:,} of 60,000 training images, {EPOCHS} epochs; each term at its "
        "default weight beside cross_entropy of weight 0.5, control: cross_entropy alone; accuracy and agreement with "
        "the teacher in percent, of the weights after the last epoch, on 10,000 held-out training images and the "
        "10,000 test images; seconds of processor time of one training on one thread",
        "macs": macs,
        "threads": torch.get_num_threads(),
        "training": job_spec([], data, 0).training.model_dump(mode="json", exclude_none=True),
        "terms": {
            name: [term.model_dump(mode="json", exclude_none=True) for term in terms]
            for name, terms in {**OBJECTIVES, **WEIGHTS}.items()
        },
    }


if __name__ == "__main__":
    main()
