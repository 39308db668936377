"""The training loop of real jobs on MNIST beside the same work by hand and by torchdistill, in one run, in turn.

- 784-64-10, batch 128, soft labels computed once; what is counted is the distilling phase as the report times it:
  steps, logging, progress and one evaluation. Beside it a hand-written loop on ready tensors (`bare_loop`, the limit),
  the student alone with cross-entropy (`student_alone`), and torchdistill doing the same distillation, once as its
  users run it (the teacher answers every batch) and once with a teacher that costs nothing
  (`torchdistill_free_teacher`).
- `convolutional`: a convolutional student, with an empty store of soft labels (labelling counts) and a filled one.
- `features`: terms on layers, for which the teacher answers every batch.
- `views`: what soft labels of 4 augmented views cost beside 100 epochs without a teacher.
- `kl_term`: the term itself.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.jobs import Done, empty_label_store, run_job
from benchmarks.mnist import FILES, TEACHER, job_spec, short_job_spec, upload_all, write_first, write_tensors
from benchmarks.pairs import CE, CONVOLUTIONAL, FEATURES
from benchmarks.results import publish, spread
from stillhouse import Client
from stillhouse.contract.spec import JobSpec
from stillhouse.local import running

ROUNDS = 3
EPOCHS = 6
LOOPS = ("bare_loop", "student_alone", "torchdistill", "torchdistill_free_teacher")

NUM_SAMPLES = 12_000  # of the convolutional pair: the first of the training split, a tenth of which is held out
CONVOLUTIONAL_EPOCHS = 10
# torchdistill as it comes, and with both models in the memory format that is faster.
CONVOLUTIONAL_LOOPS = ("bare_loop", "loader_loop", "torchdistill_contiguous", "torchdistill")
FEATURE_EPOCHS = 6  # so that, as in most jobs, not every step is one that is logged
VIEWS = 4
VIEWS_EPOCHS = 4  # that are measured
LONG_EPOCHS = 100  # that they stand for

# Of one measurement in each round, by what was measured.
Measured = dict[str, list[float]]


@dataclass(frozen=True)
class Loops:
    """Loops of `benchmarks.loops` on a pair, each with the threads and memory format that are fastest for it."""

    pair: str
    folder: Path
    settings: dict[str, tuple[str, str]]

    @classmethod
    def choose(cls, pair: str, folder: Path, kinds: Sequence[str]) -> "Loops":
        """Try them out."""
        settings = {kind: _fastest(pair, kind, folder) for kind in kinds}
        return cls(pair, folder, settings)

    def speed(self, kind: str, epochs: int) -> float:
        """Samples per second. A term on layers runs in torchdistill as soft labels do."""
        setting = self.settings[kind if kind in self.settings else "torchdistill"]
        return float(_loop(self.pair, kind, self.folder, epochs, *setting))

    def facts(self) -> dict[str, dict[str, str]]:
        """The settings, for the results."""
        return {
            kind: {"threads": threads, "memory_format": memory_format}
            for kind, (threads, memory_format) in self.settings.items()
        }


def _fastest(pair: str, kind: str, folder: Path) -> tuple[str, str]:
    threads, memory_format = _loop(pair, kind, folder, 0, "1", "contiguous").split()
    return threads, memory_format


def _loop(pair: str, kind: str, folder: Path, epochs: int, threads: str, memory_format: str) -> str:
    """The last line that a loop prints, run in a process of its own under the trainer's settings."""
    return _last_line("benchmarks.loops", pair, kind, str(folder), str(epochs), threads, memory_format)


def _last_line(module: str, *arguments: str) -> str:
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.splitlines()[-1]


def training(epochs: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the section as JSON
    """The training section with one evaluation at its end."""
    return {"epochs": epochs, "evaluate_every": epochs, **fields}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | int]:
    """How many times as fast, round by round."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def perceptron(client: Client, folder: Path) -> dict[str, Any]:
    """784-64-10."""
    write_tensors(folder)
    artifacts = upload_all(client, [TEACHER, *FILES])
    spec = job_spec(artifacts, training=training(EPOCHS), export={"formats": ["safetensors"]}, control=False)
    run_job(client, spec)
    loops = Loops.choose("mlp", folder, LOOPS)
    speeds: Measured = {name: [] for name in ("engine", *LOOPS)}
    for _ in range(ROUNDS):
        speeds["engine"].append(run_job(client, spec).speed)
        for kind in LOOPS:
            speeds[kind].append(loops.speed(kind, 1 if kind == "torchdistill" else EPOCHS))
    ratio = {f"ratio_to_{kind}": ratios(speeds["engine"], speeds[kind]) for kind in LOOPS}
    return {
        "what": f"MNIST 784-64-10, batch 128, {EPOCHS} epochs, {ROUNDS} rounds in turn",
        "settings": loops.facts(),
        "samples_per_second": median(speeds["engine"]),
        **{kind: median(speeds[kind]) for kind in LOOPS},
        "ratio_to_bare": ratio["ratio_to_bare_loop"]["median"],
        "ratio_to_torchdistill": ratio["ratio_to_torchdistill"]["median"],
        "ratio_to_torchdistill_free_teacher": ratio["ratio_to_torchdistill_free_teacher"]["median"],
        "spread": {**{name: spread(values) for name, values in speeds.items()}, **ratio},
    }


@dataclass(frozen=True)
class Pair:
    """The convolutional pair in the service and as tensors."""

    client: Client
    artifacts: dict[str, str]
    files: list[Path]
    loops: Loops

    @classmethod
    def make(cls, client: Client, folder: Path) -> "Pair":
        """Upload it, and choose the loops' settings."""
        folder.mkdir()
        write_tensors(folder, NUM_SAMPLES)
        files = write_first(folder, NUM_SAMPLES)
        artifacts = upload_all(client, [TEACHER, *files])
        return cls(client, artifacts, files, Loops.choose("cnn", folder, CONVOLUTIONAL_LOOPS))

    def spec(self, **sections: Any) -> JobSpec:  # noqa: ANN401 - sections of the spec as JSON
        """A job of the pair."""
        student = CONVOLUTIONAL.model_dump(mode="json", exclude_none=True)
        return short_job_spec(self.artifacts, self.files, student=student, **sections)

    def run(self, **sections: Any) -> Done:  # noqa: ANN401 - sections of the spec as JSON
        """Such a job."""
        return run_job(self.client, self.spec(**sections))

    def run_cold(self, **sections: Any) -> Done:  # noqa: ANN401 - sections of the spec as JSON
        """The same with an empty store of soft labels."""
        empty_label_store(self.client)
        return self.run(**sections)


def convolutional(pair: Pair) -> dict[str, Any]:
    """Soft labels of the convolutional pair, cold and warm."""
    section = training(CONVOLUTIONAL_EPOCHS)
    speeds: Measured = {name: [] for name in ("cold", "warm", "cold_whole_job", *CONVOLUTIONAL_LOOPS)}
    for _ in range(ROUNDS):
        cold, warm = pair.run_cold(training=section), pair.run(training=section)
        speeds["cold"].append(cold.speed_with_labels)
        speeds["cold_whole_job"].append(cold.report.num_train_samples_seen / cold.seconds)
        speeds["warm"].append(warm.speed_with_labels)
        speeds["bare_loop"].append(pair.loops.speed("bare_loop", CONVOLUTIONAL_EPOCHS))
        for kind in CONVOLUTIONAL_LOOPS[1:]:
            speeds[kind].append(pair.loops.speed(kind, 2))
    ratio = {
        "ratio_to_bare": ratios(speeds["warm"], speeds["bare_loop"]),
        **{
            f"{store}_ratio_to_{kind}": ratios(speeds[store], speeds[kind])
            for store in ("cold", "warm", "cold_whole_job") for kind in CONVOLUTIONAL_LOOPS[1:]
        },
    }
    return {
        "what": f"the teacher of examples/mnist into {_named_student()}, {NUM_SAMPLES:,} images of MNIST, batch 128, "
        f"{CONVOLUTIONAL_EPOCHS} epochs, {ROUNDS} rounds in turn; samples per second",
        "settings": pair.loops.facts(),
        **{name: median(values) for name, values in speeds.items()},
        **{name: values["median"] for name, values in ratio.items()},
        "spread": {**{name: spread(values) for name, values in speeds.items()}, **ratio},
    }


def features(pair: Pair) -> dict[str, Any]:
    """Terms on layers, each with cross-entropy."""
    speeds: dict[str, Measured] = {name: {"engine": [], "torchdistill": []} for name in FEATURES}
    for _ in range(ROUNDS):
        for name, feature in FEATURES.items():
            objective = {"terms": [feature.term(name), CE.model_dump(mode="json")]}
            done = pair.run(training=training(FEATURE_EPOCHS), objective=objective)
            speeds[name]["engine"].append(done.speed)
            speeds[name]["torchdistill"].append(pair.loops.speed(f"torchdistill_{name}", 1))
    return {
        name: {
            "layers": FEATURES[name].paths,
            **{who: median(values) for who, values in of.items()},
            "ratio_to_torchdistill": ratios(of["engine"], of["torchdistill"])["median"],
            "spread": {
                **{who: spread(values) for who, values in of.items()},
                "ratio_to_torchdistill": ratios(of["engine"], of["torchdistill"]),
            },
        }
        for name, of in speeds.items()
    }


def views(pair: Pair) -> dict[str, Any]:
    """Seconds of labelling 4 views, over those of 100 epochs without a teacher; and of the whole training with them."""
    section = training(VIEWS_EPOCHS, augmentation={"transforms": [{"kind": "shift"}]})
    labels, shares, totals = [], [], []
    for _ in range(ROUNDS):
        taught = pair.run_cold(training=section, soft_labels={"kind": "views", "views": VIEWS})
        alone = pair.run(training=section, objective={"terms": [{"kind": "cross_entropy"}]})
        scale = LONG_EPOCHS / VIEWS_EPOCHS
        labels.append(taught.label_seconds)
        shares.append(taught.label_seconds / (alone.training_seconds * scale))
        totals.append((taught.label_seconds / scale + taught.training_seconds) / alone.training_seconds)
    return {
        "what": f"labels of {VIEWS} shifted views over {LONG_EPOCHS} epochs without a teacher, by the time that "
        f"{VIEWS_EPOCHS} such epochs take; with_teacher is labels and {LONG_EPOCHS} epochs with them over the same",
        "seconds_of_labels": median(labels),
        "ratio_of_labels": median(shares),
        "ratio_with_teacher": median(totals),
        "spread": {
            "seconds_of_labels": spread(labels), "ratio_of_labels": spread(shares),
            "ratio_with_teacher": spread(totals),
        },
    }


def kl_term() -> dict[str, Any]:
    """Milliseconds of the term, and how many times those of a closed-form function."""
    by_classes: dict[str, Measured] = json.loads(_last_line("benchmarks.kl_term"))
    return {
        f"{classes}_classes": {
            **{f"{name}_ms": spread(values) for name, values in of.items()},
            "ratio_to_closed_form": ratios(of["ours"], of["closed_form"]),
            "ratio_to_autograd": ratios(of["ours"], of["autograd"]),
        }
        for classes, of in by_classes.items()
    }


def _named_student() -> str:
    return "-".join(str(width) for width in ("cnn 1", *CONVOLUTIONAL.channels, 10))


def main() -> None:
    """Run all and publish."""
    with tempfile.TemporaryDirectory() as folder, running(home=Path(folder) / "home", port=0) as service:
        client = Client(service.url, service.key)
        figures = perceptron(client, Path(folder))
        pair = Pair.make(client, Path(folder) / "convolutional")
        figures |= {"convolutional": convolutional(pair), "features": features(pair), "views": views(pair)}
    publish("engine", figures | {"kl_term": kl_term()})


if __name__ == "__main__":
    main()
