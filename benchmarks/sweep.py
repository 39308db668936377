"""Eight convolutional students of one teacher on MNIST, as eight jobs that share its soft labels.

`ratio` is the seconds of these jobs, from POST /jobs to the end, over those of eight jobs that are the same but learn
from the labels alone (`cross_entropy` is the only term). The first job finds an empty store, so labelling is in the
sum. `training_ratio` leaves out what both have alike: it is labelling and distilling over the other's training.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.jobs import Done, run_job
from benchmarks.mnist import TEACHER, short_job_spec, upload_all, write_first
from benchmarks.results import publish
from stillhouse import Client
from stillhouse.local import running

NUM_SAMPLES = 12_000
EPOCHS = 8
STUDENTS = (
    [8, 16], [16, 16], [8, 32], [8, 16, 16], [8, 16, 32], [8, 24, 24], [12, 24, 24], [8, 16, 32, 32],
)
ALONE = {"terms": [{"kind": "cross_entropy"}]}


def figures_of(done: Done) -> dict[str, Any]:
    """What a job took."""
    return {"seconds": done.seconds, "labelling": done.label_seconds, "training": done.training_seconds}


def main() -> None:
    """Run the jobs, one with the teacher and one without in turn, and publish."""
    taught: list[Done] = []
    alone: list[Done] = []
    with tempfile.TemporaryDirectory() as folder, running(home=Path(folder) / "home", port=0) as service:
        client = Client(service.url, service.key)
        files = write_first(Path(folder), NUM_SAMPLES)
        artifacts = upload_all(client, [TEACHER, *files])

        def run(channels: list[int], epochs: int, **sections: Any) -> Done:  # noqa: ANN401 - sections as JSON
            student, training = {"kind": "cnn", "channels": channels}, {"epochs": epochs}
            return run_job(client, short_job_spec(artifacts, files, student=student, training=training, **sections))

        run(STUDENTS[0], 1, objective=ALONE)  # stages the inputs and warms the service up
        for number, channels in enumerate(STUDENTS):
            arms = [(taught, {}), (alone, {"objective": ALONE})]
            for into, sections in arms if number % 2 == 0 else reversed(arms):
                into.append(run(channels, EPOCHS, **sections))
    publish("sweep", summary(taught, alone))


def summary(taught: list[Done], alone: list[Done]) -> dict[str, Any]:
    """The ratios, and every job."""
    return {
        "what": f"{len(STUDENTS)} students of the teacher of examples/mnist, {NUM_SAMPLES:,} images of MNIST, batch "
        f"128, {EPOCHS} epochs; with the teacher, and without it",
        "ratio": sum(done.seconds for done in taught) / sum(done.seconds for done in alone),
        "training_ratio": sum(done.label_seconds + done.training_seconds for done in taught)
        / sum(done.training_seconds for done in alone),
        "seconds": {"taught": sum(done.seconds for done in taught), "alone": sum(done.seconds for done in alone)},
        "students": [
            {"channels": channels, "taught": figures_of(with_teacher), "alone": figures_of(without)}
            for channels, with_teacher, without in zip(STUDENTS, taught, alone, strict=True)
        ],
    }


if __name__ == "__main__":
    main()
