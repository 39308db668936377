"""Soft labels between real supervisors with real trainers: made once, waited for, taken over, never another owner's."""

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.artifacts import service as artifacts
from app.artifacts.service import store_file
from app.jobs import queries, service
from app.kit.clock import now
from app.settings import Settings
from app.soft_labels.models import SoftLabelsRow
from app.soft_labels.service import usage
from stillhouse.contract.events import Noted, PhaseStarted, Progressed, SoftLabelsSaved
from stillhouse.contract.resources import ArtifactKind
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Phase, Status
from tests.fixtures.jobs import Desk
from tests.fixtures.lessons import TEACHER, TEST, TRAIN, Lesson
from tests.fixtures.waiting import wait_until
from worker import reaper
from worker.slots import Slots
from worker.staging import Cache
from worker.supervisor import serve
from worker.workshop import Workshop

# 72 training samples in 2 views, 24 validation and 40 test samples, by shards of 16 rows and passes of 8.
NUM_SHARDS = 2 * 5 + 2 + 3
NUM_PASSES = 2 * 9 + 3 + 5
WAIT = 60.0


@dataclass(frozen=True)
class School:
    """Workers that share a database, and jobs that share a teacher."""

    shop: Workshop
    desk: Desk
    lesson: Lesson

    def submit(self, name: str, owner: str = "ann", *, hidden: int = 6) -> str:
        """A job with a student of its own."""
        ids = {name: self._upload(path, owner) for name, path in self.lesson.inputs.items()}
        raw = {
            "name": name, "labels": {"folder": str(self.lesson.folder)}, "control": False,
            "teacher": {"kind": "checkpoint", "artifact": ids[TEACHER]}, "student": {"kind": "mlp", "hidden": [hidden]},
            "data": {
                "kind": "npz", "train": {"artifact": ids[TRAIN]}, "test": {"artifact": ids[TEST]},
                "validation_fraction": 0.25,
            },
            "training": {"epochs": 4, "batch_size": 16, "augmentation": {"transforms": [{"kind": "flip"}]}},
            "soft_labels": {"kind": "views", "views": 2},
        }
        with self.desk.db.writing() as session:
            return service.submit(
                session, owner=owner, spec=JobSpec.model_validate(raw), raw=raw, queue="cpu"
            ).id

    def worker(self, name: str) -> Workshop:
        """One more worker, with rooms of its own."""
        folder = self.lesson.folder / name
        settings = self.shop.settings.model_copy(update={"scratch_folder": folder / "scratch"})
        settings.scratch_folder.mkdir(parents=True)
        return replace(
            self.shop, name=name, settings=settings, devices=Slots(1), draining=threading.Event(),
            cache=Cache(folder / "cache", settings.cache_bytes),
        )

    def hold(self, name: str, from_pass: int) -> None:
        """Have the teacher of the job of this name wait at a pass."""
        temporary = self.lesson.folder / "hold"
        temporary.write_text(str(from_pass))
        temporary.rename(self.lesson.folder / f"hold-{name}")

    def let_go(self, name: str) -> None:
        """Have it wait no longer."""
        (self.lesson.folder / f"hold-{name}").unlink()

    def passes(self, name: str | None = None) -> int:
        """Passes of the teacher, of one job or of all."""
        path = self.lesson.folder / "passes"
        lines = path.read_text().splitlines() if path.exists() else []
        return len([line for line in lines if name in {None, line}])

    def made(self, job_id: str) -> list[str]:
        """Keys of the shards that a job made."""
        return [event.key for event in self.events(job_id) if isinstance(event, SoftLabelsSaved)]

    def notes(self, job_id: str, code: str) -> list[dict[str, Any]]:
        """Data of the notes with this code."""
        return [event.data for event in self.events(job_id) if isinstance(event, Noted) and event.code == code]

    def events(self, job_id: str) -> list[object]:
        """The job's log."""
        return [line.event for line in self.desk.events(job_id)]

    def weights(self, job_id: str) -> str:
        """Digest of the student's weights."""
        with self.desk.db.reading() as session:
            _, bundle = session.execute(queries.files(), {"job_id": job_id}).one()
            found: str = json.loads(b"".join(artifacts.content(self.desk.stores, bundle)))["weights"]
            return found

    def shards(self, owner: str = "ann") -> list[dict[str, Any]]:
        """Facts of the shards that are there."""
        with self.desk.db.reading() as session:
            rows = artifacts.page(session, owner, kind="soft_labels").rows
            used = usage(session, rows)
            return [row.facts | used[row.id] for row in rows]

    def wait_for(self, job_id: str, status: Status) -> None:
        """Until the job has the status."""
        wait_until(lambda: self.desk.row(job_id).status == status, WAIT)

    def wait_for_pass(self, name: str, number: int) -> None:
        """Until the teacher of that job has made so many passes."""
        wait_until(lambda: self.passes(name) >= number, WAIT)

    def _upload(self, path: Path, owner: str) -> str:
        kind: ArtifactKind = "teacher" if path.suffix == ".safetensors" else "data"
        return store_file(
            self.desk.db, self.desk.stores, path, owner=owner, kind=kind, name=path.name,
            format=path.suffix.removeprefix("."), job_id=None, into="files",
        ).id


def school_in(shop: Workshop, desk: Desk, folder: Path) -> School:
    logging.getLogger("app.doorbell").setLevel(logging.ERROR)
    lesson = Lesson(folder)
    folder.mkdir()
    lesson.write_blobs(TRAIN, 96, seed=0)
    lesson.write_blobs(TEST, 40, seed=1)
    lesson.write_teacher()
    # Its trainers are steered by files outside of their own folder.
    settings = shop.settings.model_copy(update={"engine": "tests.fixtures.labelling_engine", "sandbox": "off"})
    return School(replace(shop, settings=settings, db=desk.db, stores=desk.stores), desk, lesson)


@pytest.fixture
def school(shop: Workshop, office: Desk, tmp_path: Path) -> School:
    """Where the kind of database does not matter."""
    return school_in(shop, office, tmp_path / "school")


@pytest.fixture
def any_school(shop: Workshop, config: Settings, desk: Desk, tmp_path: Path) -> School:
    """Once on each kind of database."""
    return school_in(replace(shop, settings=config), desk, tmp_path / "school")


@contextmanager
def working(*shops: Workshop) -> Iterator[None]:
    """Each worker answers one ring, on a thread of its own."""
    threads = [threading.Thread(target=serve, args=(shop, "cpu"), daemon=True) for shop in shops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)


def trainer_of(shop: Workshop) -> int:
    """Pid of the trainer that prints into this worker's scratch folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _prints_into(shop, process):
            return int(process.name)
    raise AssertionError("no trainer runs")


def _prints_into(shop: Workshop, process: Path) -> bool:
    try:
        return (process / "fd" / "1").readlink().is_relative_to(shop.settings.scratch_folder)
    except OSError:
        return False


def test_a_second_job_skips_the_teacher_and_its_use_is_counted(any_school: School) -> None:
    school = any_school
    first, second = school.submit("first"), school.submit("second", hidden=9)
    serve(school.shop, "cpu")
    assert school.desk.row(first).status == school.desk.row(second).status == Status.SUCCEEDED
    assert len(set(school.made(first))) == len(school.made(first)) == NUM_SHARDS
    assert (school.passes("first"), school.passes("second")) == (NUM_PASSES, 0)
    phases = [event.phase for event in school.events(second) if isinstance(event, PhaseStarted)]
    assert Phase.SOFT_LABELS not in phases
    assert [data["shared"] for data in school.notes(second, "soft_labels_shared")] == [NUM_SHARDS]
    shards = school.shards()
    assert {shard["key"] for shard in shards} == set(school.made(first))
    assert sorted((shard["split"], shard["view"], shard["shard"]) for shard in shards if shard["split"] == "train") == [
        ("train", view, number) for view in range(2) for number in range(5)
    ]
    assert {shard["num_uses"] for shard in shards} == {1}
    assert all(shard["seconds_saved"] == shard["seconds"] > 0 for shard in shards)
    assert sum(shard["num_rows"] for shard in shards) == 2 * 72 + 24 + 40


def test_the_same_job_again_ends_with_the_same_weights(school: School) -> None:
    first, second = school.submit("first"), school.submit("second")
    serve(school.shop, "cpu")
    assert school.made(second) == []
    assert school.weights(second) == school.weights(first)


def test_another_owner_makes_its_own(school: School) -> None:
    ann, bob = school.submit("of-ann", "ann"), school.submit("of-bob", "bob")
    serve(school.shop, "cpu")
    assert len(school.made(bob)) == NUM_SHARDS
    assert set(school.made(bob)).isdisjoint(school.made(ann))
    assert {shard["num_uses"] for shard in [*school.shards("ann"), *school.shards("bob")]} == {0}


def test_two_jobs_at_once_make_each_shard_once(any_school: School) -> None:
    school = any_school
    one, other = school.worker("one"), school.worker("other")
    first = school.submit("first")
    school.hold("first", from_pass=6)
    with working(one):
        school.wait_for_pass("first", 5)  # two shards are made, a third is half made
        second = school.submit("second", hidden=9)
        with working(other):
            wait_until(lambda: school.notes(second, "soft_labels_awaited") == [{"jobs": [first]}], WAIT)
            lease = school.desk.row(second).lease_until
            wait_until(lambda: school.desk.row(second).lease_until != lease, WAIT)
            school.let_go("first")
    assert school.desk.row(first).status == school.desk.row(second).status == Status.SUCCEEDED
    made = [*school.made(first), *school.made(second)]
    assert len(set(made)) == len(made) == NUM_SHARDS
    assert school.passes() == NUM_PASSES


def test_who_waits_can_be_cancelled(school: School) -> None:
    one, other = school.worker("one"), school.worker("other")
    first = school.submit("first")
    school.hold("first", from_pass=2)
    with working(one):
        school.wait_for_pass("first", 1)
        second = school.submit("second")
        with working(other):
            wait_until(lambda: bool(school.notes(second, "soft_labels_awaited")), WAIT)
            school.desk.cancel(second)
            school.wait_for(second, Status.CANCELLED)
        school.let_go("first")
    assert school.desk.row(first).status == Status.SUCCEEDED
    assert school.passes("second") == 0


def test_when_the_maker_dies_who_waits_takes_over(any_school: School) -> None:
    school = any_school
    one, other = school.worker("one"), school.worker("other")
    first = school.submit("first")
    school.hold("first", from_pass=6)
    with working(one):
        school.wait_for_pass("first", 5)
        second = school.submit("second", hidden=9)
        with working(other):
            wait_until(lambda: bool(school.notes(second, "soft_labels_awaited")), WAIT)
            (school.lesson.folder / "hold-preflight-first").touch()  # its next attempt begins when the other is done
            os.kill(trainer_of(one), signal.SIGKILL)
            school.wait_for(second, Status.SUCCEEDED)
        school.let_go("first")
        (school.lesson.folder / "hold-preflight-first").unlink()
    assert (school.desk.row(first).status, school.desk.row(first).attempt) == (Status.SUCCEEDED, 2)
    made = [*school.made(first), *school.made(second)]
    assert len(set(made)) == len(made) == NUM_SHARDS
    assert len(school.made(first)) == 2
    half_made = 1
    assert school.passes() == NUM_PASSES + half_made


def test_a_trainer_killed_in_mid_labelling_loses_no_finished_shard(any_school: School) -> None:
    school = any_school
    reference = school.submit("reference", "bob")
    job_id = school.submit("killed")
    school.hold("killed", from_pass=12)
    with working(school.shop):
        school.wait_for_pass("killed", 11)  # five shards of 9 passes, one of 2, a half
        wait_until(lambda: len(school.made(job_id)) == 6, WAIT)
        os.kill(trainer_of(school.shop), signal.SIGKILL)
        school.let_go("killed")
    row = school.desk.row(job_id)
    assert (row.status, row.attempt, row.losses) == (Status.SUCCEEDED, 2, 1)
    assert len(set(school.made(job_id))) == len(school.made(job_id)) == NUM_SHARDS
    assert school.passes("killed") == NUM_PASSES
    assert school.weights(job_id) == school.weights(reference)
    assert {shard["num_uses"] for shard in school.shards()} == {0}, "going on is no use by another job"


def test_a_lost_worker_is_followed_when_its_lease_ends(any_school: School) -> None:
    """No reaper has to come first."""
    school = any_school
    one, other = school.worker("one"), school.worker("other")
    first = school.submit("first")
    school.hold("first", from_pass=6)
    with working(one):
        school.wait_for_pass("first", 5)
        wait_until(lambda: len(school.made(first)) == 2, WAIT)
        school.desk.set(first, lease_worker="of a machine that is gone", lease_until=now(1))
    second = school.submit("second", hidden=9)
    serve(other, "cpu")
    assert school.desk.row(second).status == Status.SUCCEEDED
    assert school.desk.row(first).status == Status.RUNNING
    assert len(school.made(second)) == NUM_SHARDS - 2


@pytest.mark.embedded
def test_shards_that_the_store_has_lost_or_changed_are_made_again(school: School, tmp_path: Path) -> None:
    serve_one(school, "first")
    blobs = sorted(path for path in (tmp_path / "blobs").rglob("blob_*") if b"soft_labels" in path.read_bytes()[:200])
    assert len(blobs) == NUM_SHARDS
    blobs[0].unlink()
    blobs[1].write_bytes(blobs[1].read_bytes()[:-1] + b"x")
    second = serve_one(replace(school, shop=school.worker("with an empty cache")), "second")
    assert len(school.made(second)) == 2
    third = serve_one(school, "third")
    assert school.made(third) == []
    assert len(school.shards()) == NUM_SHARDS


def serve_one(school: School, name: str) -> str:
    job_id = school.submit(name)
    serve(school.shop, "cpu")
    assert school.desk.row(job_id).status == Status.SUCCEEDED
    return job_id


def test_nothing_is_evicted_while_a_job_uses_it(any_school: School) -> None:
    school = any_school
    serve_one(school, "first")
    settings = school.shop.settings.model_copy(update={"soft_label_bytes": 0, "soft_label_days": 1.0})
    forgetful = replace(school.shop, settings=settings)
    second = school.submit("second")
    (school.lesson.folder / "hold-distilling-second").touch()
    with working(school.shop):
        wait_until(lambda: school.desk.row(second).phase == Phase.DISTILLING, WAIT)
        with school.desk.db.writing() as session:
            session.execute(update(SoftLabelsRow).values(last_used_at=now(-(10**8))))
        reaper.evict(forgetful)
        assert len(school.shards()) == NUM_SHARDS
        (school.lesson.folder / "hold-distilling-second").unlink()
    assert school.desk.row(second).status == Status.SUCCEEDED
    reaper.evict(forgetful)
    reaper.evict(forgetful)
    assert school.shards() == []


def test_progress_reaches_the_end_of_the_phase(school: School) -> None:
    job_id = serve_one(school, "first")
    told = [
        event for event in school.events(job_id) if isinstance(event, Progressed) and event.phase is Phase.SOFT_LABELS
    ]
    assert told[-1].step == told[-1].total_steps == NUM_PASSES
