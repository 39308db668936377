"""The main job on real data with the real engine: a teacher in, a compressed model out, and it answers."""

import json
import subprocess
from pathlib import Path

from stillhouse import Client
from stillhouse.contract.events import Measured, PhaseStarted, Progressed
from stillhouse.contract.spec import CheckpointTeacher, IdxData, IdxSplit, JobSpec, Mlp, Training
from stillhouse.contract.status import Phase
from tests.e2e.conftest import Running, command, environment_of


def test_a_teacher_is_distilled_and_its_student_answers(
    running: Running, teacher: Path, small_mnist: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "home") as local, Client(local.url, local.key) as client:
        files = {file.name: client.upload(file).id for file in small_mnist.iterdir()}
        split = {
            name: IdxSplit(inputs=files[f"{word}-images-idx3-ubyte"], labels=files[f"{word}-labels-idx1-ubyte"])
            for name, word in (("train", "train"), ("test", "t10k"))
        }
        job = client.submit(JobSpec(
            name="small", teacher=CheckpointTeacher(artifact=client.upload(teacher).id), student=Mlp(hidden=[32]),
            data=IdxData(train=split["train"], test=split["test"]), training=Training(epochs=3),
        ))
        recorded = list(job.watch())
        ended = job.refresh()
        assert ended.status == "succeeded", ended.error
        bundle = job.download(tmp_path / "student.zip")
        report = job.report()
        series = {(one.phase, one.name): one.points for one in job.metrics()}

    assert [one.seq for one in recorded] == list(range(1, len(recorded) + 1))
    phases = [one.event.phase for one in recorded if isinstance(one.event, PhaseStarted)]
    assert {Phase.DISTILLING, Phase.CONTROL, Phase.EVALUATING, Phase.EXPORTING} <= set(phases)
    percents = [one.event.percent for one in recorded if isinstance(one.event, Progressed)]
    assert percents == sorted(percents)
    assert any("loss.kl" in one.event.values for one in recorded if isinstance(one.event, Measured))
    assert series["distilling", "validation.accuracy"]
    assert {file.role for file in ended.files} == {"bundle", "safetensors", "onnx", "report_html"}

    student = report.subject("student")
    assert student is not None
    assert student.scores.accuracy is not None
    assert student.scores.accuracy > 0.6
    assert report.subject("control") is not None

    done = subprocess.run(
        command("predict", str(bundle), str(small_mnist / "t10k-images-idx3-ubyte"), "--json"),
        cwd=tmp_path, env=environment_of(tmp_path), capture_output=True, text=True, check=True,
    )
    answers = [one["index"] for one in json.loads(done.stdout)["predictions"]]
    truth = list((small_mnist / "t10k-labels-idx1-ubyte").read_bytes()[8:])
    accuracy = sum(answer == label for answer, label in zip(answers, truth, strict=True)) / len(truth)
    assert abs(accuracy - student.scores.accuracy) < 1e-6
