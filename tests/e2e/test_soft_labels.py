"""Two jobs with one teacher, over HTTP, with the real engine: the second one asks the teacher nothing."""

from pathlib import Path
from typing import Any

from stillhouse import Client
from stillhouse.client import JobHandle
from stillhouse.contract.events import Noted, PhaseStarted, SoftLabelsSaved
from stillhouse.contract.status import Phase
from tests.e2e.conftest import Running

VIEWS = 2


def log(job: JobHandle) -> list[object]:
    events: list[object] = [recorded.event for recorded in job.watch()]
    assert job.refresh().status == "succeeded", job.refresh().error
    return events


def test_a_second_student_learns_from_labels_that_the_first_paid_for(
    running: Running, teacher: Path, small_mnist: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "home") as local, Client(local.url, local.key) as client:
        files = {file.name: client.upload(file).id for file in small_mnist.iterdir()}
        spec: dict[str, Any] = {
            "teacher": {"kind": "checkpoint", "artifact": client.upload(teacher).id},
            "data": {
                "kind": "idx",
                **{
                    name: {
                        "inputs": files[f"{word}-images-idx3-ubyte"], "labels": files[f"{word}-labels-idx1-ubyte"]
                    } for name, word in (("train", "train"), ("test", "t10k"))
                },
            },
            "training": {
                "epochs": 4, "augmentation": {"transforms": [{"kind": "shift", "pixels": 1}]},
            },
            "soft_labels": {"kind": "views", "views": VIEWS}, "control": False, "export": {"formats": ["safetensors"]},
        }
        first = log(client.submit(spec | {"student": {"kind": "mlp", "hidden": [16]}}))
        made = [event for event in first if isinstance(event, SoftLabelsSaved)]
        assert {(event.split, event.view) for event in made} == {
            *(("train", view) for view in range(VIEWS)), ("validation", 0), ("test", 0)
        }
        second = log(client.submit(spec | {"student": {"kind": "cnn", "channels": [4]}, "seed": 3}))
        shards = list(client.artifacts(kind="soft_labels"))

    assert [event for event in second if isinstance(event, SoftLabelsSaved)] == []
    assert Phase.SOFT_LABELS not in [event.phase for event in second if isinstance(event, PhaseStarted)]
    (shared,) = [event.data for event in second if isinstance(event, Noted) and event.code == "soft_labels_shared"]
    assert shared["shared"] == shared["num_shards"] == len(made)
    assert {shard.facts["key"] for shard in shards} == {event.key for event in made}
    assert {shard.facts["num_uses"] for shard in shards} == {1}
    assert all(shard.facts["seconds_saved"] == shard.facts["seconds"] > 0 for shard in shards)
