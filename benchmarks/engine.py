"""Samples per second of a real job on MNIST, 784-64-10, batch 128, soft labels computed once.

What is counted is the distilling phase as the report times it: steps, logging, progress and one evaluation.

Beside it, in the same run and in turn with it: a hand-written loop on ready tensors (`bare_loop`, the limit), the
student alone with cross-entropy (`student_alone`), and torchdistill doing the same distillation, once as its users
run it (the teacher answers every batch) and once with a teacher that costs nothing (`torchdistill_free_teacher`).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.mnist import FILES, TEACHER, job_spec, upload_all, write_tensors
from benchmarks.results import publish, spread
from stillhouse import Client
from stillhouse.local import running

ROUNDS = 4
EPOCHS = 6
LOOPS = ("bare_loop", "student_alone", "torchdistill", "torchdistill_free_teacher")


def job_speed(client: Client, artifacts: dict[str, str]) -> float:
    """Samples per second of the distilling phase of one real job."""
    spec = job_spec(artifacts, training={"epochs": EPOCHS, "evaluate_every": EPOCHS}, control=False)
    job = client.submit(spec)
    job.wait()
    report = job.report()
    return report.num_train_samples_seen / report.phase_seconds["distilling"]


def loop_speed(kind: str, folder: Path, threads: int) -> float:
    """Samples per second of one of `benchmarks.loops`, in a process of its own under the trainer's settings."""
    epochs = 1 if kind == "torchdistill" else EPOCHS
    command = [sys.executable, "-m", "benchmarks.loops", kind, str(folder), str(epochs), str(threads)]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def best_threads(kind: str, folder: Path) -> int:
    """One thread or all of them, whichever is faster."""
    return max({1, os.cpu_count() or 1}, key=lambda threads: loop_speed(kind, folder, threads))


def main() -> None:
    """Run the rounds and publish."""
    speeds: dict[str, list[float]] = {name: [] for name in ("engine", *LOOPS)}
    with tempfile.TemporaryDirectory() as folder, running(home=Path(folder) / "home", port=0) as service:
        write_tensors(Path(folder))
        client = Client(service.url, service.key)
        artifacts = upload_all(client, [TEACHER, *FILES])
        job_speed(client, artifacts)
        threads = {kind: best_threads(kind, Path(folder)) for kind in LOOPS}
        for _ in range(ROUNDS):
            speeds["engine"].append(job_speed(client, artifacts))
            for kind in LOOPS:
                speeds[kind].append(loop_speed(kind, Path(folder), threads[kind]))

    def ratio(kind: str) -> dict[str, float | int]:
        return spread([ours / other for ours, other in zip(speeds["engine"], speeds[kind], strict=True)])

    publish("engine", {
        "what": f"MNIST 784-64-10, batch 128, {EPOCHS} epochs, {ROUNDS} rounds in turn",
        "threads": threads,
        "samples_per_second": median(speeds["engine"]),
        **{kind: median(speeds[kind]) for kind in LOOPS},
        "ratio_to_bare": ratio("bare_loop")["median"],
        "ratio_to_torchdistill": ratio("torchdistill")["median"],
        "ratio_to_torchdistill_free_teacher": ratio("torchdistill_free_teacher")["median"],
        "spread": {
            **{name: spread(values) for name, values in speeds.items()},
            **{f"ratio_to_{kind}": ratio(kind) for kind in LOOPS},
        },
    })


if __name__ == "__main__":
    main()
