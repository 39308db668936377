"""Whatever happens in whatever order: collection never removes what a row refers to, and in the end nothing is left."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select, update

from app.artifacts import service as artifacts
from app.artifacts.keeping import Wanted
from app.artifacts.models import ArtifactRow, BlobRow, LooseBlobRow
from app.jobs import life
from app.jobs.models import JobRow
from app.kit.clock import now
from app.kit.database import Base, Database
from app.retention import service as retention
from app.storage.models import BlobChunkRow
from app.storage.stores import Stores
from app.uploads import service as uploads
from app.uploads.models import UploadPartRow, UploadRow
from app.uploads.receiving import Receiving
from stillhouse.contract.events import CheckpointSaved, Finished
from stillhouse.contract.failures import (
    ArtifactInUseError,
    DivergedError,
    NotFoundError,
    StillhouseError,
    UploadIncompleteError,
)
from stillhouse.contract.status import TERMINAL, Phase
from tests.fixtures.files import idx
from tests.fixtures.jobs import Desk, upload
from tests.fixtures.reports import small_report

DAY = 24 * 3600.0
# Few, so that equal bytes meet.
CONTENTS = [idx([count]) for count in (3, 4)]
PICK = st.integers(0, 1_000_000)
# What a writer hears whose bytes were given up and swept before it was done.
GIVEN_UP = (UploadIncompleteError, FileNotFoundError)


@dataclass
class Request:
    """A request that adds bytes to an upload, between its beginning and its end."""

    receiving: Receiving
    content: bytes


@dataclass
class World:
    """A real database and real stores, and all that is under way."""

    desk: Desk
    intakes: list[artifacts.Intake] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    claims: list[life.Claim] = field(default_factory=list)
    checkpoints: list[tuple[str, str]] = field(default_factory=list)  # of a job, and the artifact; as they were made

    def ids(self, table: type[ArtifactRow] | type[UploadRow]) -> list[str]:
        with self.desk.db.reading() as session:
            return list(session.scalars(select(table.id).order_by(table.created_at, table.id)))


class Collection(RuleBasedStateMachine):
    """Clients, workers and collectors by turns. `world` is set by the test."""

    world: World
    store: str

    @property
    def db(self) -> Database:
        return self.world.desk.db

    @property
    def stores(self) -> Stores:
        """Where what comes from clients goes is the store that is tried."""
        found = self.world.desk.stores
        return Stores(files=found.named(self.store), database=found.database)

    def teardown(self) -> None:
        for intake in self.world.intakes:
            intake.__exit__()
        for request in self.world.requests:
            with suppress(StillhouseError, FileNotFoundError):
                request.receiving.close(is_whole=False)
        self.everything_that_counts_is_there()
        with self.db.writing() as session:
            session.execute(update(JobRow).values(finished_at=now(-99 * DAY)))
            session.execute(update(ArtifactRow).values(created_at=now(-99 * DAY)))
            session.execute(update(UploadRow).values(expires_at=now(-1), holder=None))
        for claim in self.world.claims:
            life.fail(self.db, claim, DivergedError().as_failure())
        for job_id in self._living():
            self.world.desk.cancel(job_id)
        with self.db.writing() as session:
            session.execute(update(JobRow).values(finished_at=now(-99 * DAY)))
        while uploads.expire(self.db) + retention.drop_unused(self.db, DAY) + retention.drop_strays(self.db):
            pass
        while artifacts.sweep(self.db, self.stores):
            pass
        assert self._stored() == set(), "in the end nothing is left"

    # Clients

    @rule(content=st.sampled_from(CONTENTS))
    def upload_at_once(self, content: bytes) -> None:
        upload(self.db, self.stores, content)

    @rule(content=st.sampled_from(CONTENTS))
    def begin_an_intake(self, content: bytes) -> None:
        intake = artifacts.Intake(self.db, self.stores.files, owner="ann").__enter__()
        intake.write(content)
        self.world.intakes.append(intake)

    @precondition(lambda self: self.world.intakes)
    @rule(pick=PICK, is_kept=st.booleans())
    def end_an_intake(self, pick: int, *, is_kept: bool) -> None:
        intake = self.world.intakes.pop(pick % len(self.world.intakes))
        try:
            if is_kept:
                with suppress(*GIVEN_UP):
                    intake.finish(kind="data", name="n", format="idx")
        finally:
            intake.__exit__()

    @rule(content=st.sampled_from(CONTENTS))
    def begin_an_upload(self, content: bytes) -> None:
        uploads.begin(
            self.db, owner="ann", wanted=Wanted("data", content.hex()), length=len(content), metadata_header="",
            max_bytes=1000, hours=1,
        )

    @rule(pick=PICK, num_bytes=st.integers(1, 20))
    def begin_a_request(self, pick: int, num_bytes: int) -> None:
        row = self._an_upload(pick)
        if row is None:
            return
        with suppress(StillhouseError):
            hold = uploads.hold(self.db, owner="ann", upload_id=row.id, received=row.received, hours=1)
            receiving = Receiving(self.db, self.stores.files, hold)
            content = bytes.fromhex(row.name)[row.received:row.received + num_bytes]
            if content:
                receiving.write(content)
            self.world.requests.append(Request(receiving, content))

    @precondition(lambda self: self.world.requests)
    @rule(pick=PICK)
    def end_a_request(self, pick: int) -> None:
        request = self.world.requests.pop(pick % len(self.world.requests))
        with suppress(StillhouseError, FileNotFoundError):
            request.receiving.close(is_whole=True)
            if request.receiving.hold.is_whole:
                uploads.finish(self.db, self.stores, request.receiving.hold)
        uploads.release(self.db, request.receiving.hold)

    @rule(pick=PICK)
    def terminate_an_upload(self, pick: int) -> None:
        row = self._an_upload(pick)
        if row is not None:
            uploads.terminate(self.db, owner="ann", upload_id=row.id)

    @rule(pick=PICK)
    def delete_an_artifact(self, pick: int) -> None:
        ids = self.world.ids(ArtifactRow)
        if ids:
            with suppress(ArtifactInUseError, NotFoundError):
                artifacts.delete(self.db, self.stores, owner="ann", artifact_id=ids[pick % len(ids)])

    @rule(pick=PICK)
    def submit(self, pick: int) -> None:
        with self.db.reading() as session:
            ids = list(session.scalars(
                select(ArtifactRow.id).where(ArtifactRow.kind == "data").order_by(ArtifactRow.created_at)
            ))
        if ids:
            with self.db.writing() as session:
                self.world.desk.submit_in(session, ids[pick % len(ids)])

    # Workers

    @rule()
    def claim(self) -> None:
        claim = life.claim(self.db, queues=["cpu"], worker="w", lease_seconds=999)
        if claim is not None:
            self.world.claims.append(claim)

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK)
    def checkpoint(self, pick: int) -> None:
        claim = self.world.claims[pick % len(self.world.claims)]
        made = upload(self.db, self.stores, secrets.token_bytes(9), kind="state", job_id=claim.job_id)
        event = CheckpointSaved(phase=Phase.DISTILLING, step=1, file="state")
        life.save_checkpoint(self.db, claim, event, made.id, num_kept=2)
        self.world.checkpoints.append((claim.job_id, made.id))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, has_succeeded=st.booleans(), dies=st.booleans())
    def finish(self, pick: int, *, has_succeeded: bool, dies: bool) -> None:
        claim = self.world.claims.pop(pick % len(self.world.claims))
        made = upload(self.db, self.stores, CONTENTS[pick % 2], kind="model", job_id=claim.job_id)
        if has_succeeded and not dies:
            life.succeed(self.db, claim, Finished(report=small_report(), files=[]), [("bundle", made.id)])
        else:
            life.fail(self.db, claim, DivergedError().as_failure())
        if dies:  # it had stored another one, and did not hear that the job was over
            upload(self.db, self.stores, b"late", kind="model", job_id=claim.job_id)

    # Time and collectors

    @rule(table=st.sampled_from([ArtifactRow, UploadRow, JobRow, LooseBlobRow]))
    def time_passes(self, table: type[Base]) -> None:
        with self.db.writing() as session:
            if table is ArtifactRow:
                session.execute(update(ArtifactRow).values(created_at=now(-9 * DAY)))
            elif table is UploadRow:
                session.execute(update(UploadRow).values(expires_at=now(-1), held_until=now(-1)))
            elif table is JobRow:
                session.execute(update(JobRow).where(JobRow.finished_at.is_not(None)).values(finished_at=now(-9 * DAY)))
            else:
                session.execute(update(LooseBlobRow).values(kept_until=now(-1)))

    @rule()
    def collect(self) -> None:
        uploads.expire(self.db)
        retention.drop_strays(self.db)
        retention.drop_unused(self.db, 8 * DAY)
        artifacts.sweep(self.db, self.stores)

    @rule()
    def sweep(self) -> None:
        artifacts.sweep(self.db, self.stores)

    # What must always hold

    @invariant()
    def everything_that_counts_is_there(self) -> None:
        with self.db.reading() as session:
            blobs = list(session.scalars(select(BlobRow)))
            parts = list(session.scalars(select(UploadPartRow)))
            uploaded = {row.id: row for row in session.scalars(select(UploadRow))}
            loose = set(session.scalars(select(LooseBlobRow.id)))
            there = set(session.scalars(select(ArtifactRow.id)))
            living = list(session.scalars(select(JobRow).where(JobRow.status.not_in(TERMINAL))))
        for job in living:
            checkpoints = [made for job_id, made in self.world.checkpoints if job_id == job.id]
            needed = {job.spec["data"]["train"]["inputs"], job.checkpoint_artifact_id, *checkpoints[-2:]} - {None}
            assert needed <= there, "what a living job needs"
            assert not there & set(checkpoints[:-2]), "no more than are to be kept"
        for blob in blobs:
            content = b"".join(self.stores.named(self._named(blob.store)).read(blob.id, 0, blob.size))
            assert hashlib.sha256(content).hexdigest() == blob.sha256
        for part in parts:
            content = b"".join(self.stores.named(self._named(part.store)).read(part.blob_id, 0, part.size))
            whole = bytes.fromhex(uploaded[part.upload_id].name)
            assert content == whole[part.start:part.start + part.size]
        held = {blob.id for blob in blobs} | {part.blob_id for part in parts}
        assert not held & loose
        assert self._stored() <= held | loose, "no bytes without a row"

    def _named(self, name: str) -> str:
        return "database" if name == "database" else "files"

    def _an_upload(self, pick: int) -> UploadRow | None:
        with self.db.reading() as session:
            rows = list(session.scalars(select(UploadRow).order_by(UploadRow.created_at)))
        return rows[pick % len(rows)] if rows else None

    def _living(self) -> list[str]:
        with self.db.reading() as session:
            return list(session.scalars(select(JobRow.id).where(JobRow.status.not_in(TERMINAL))))

    def _stored(self) -> set[str]:
        with self.db.reading() as session:
            chunks = set(session.scalars(select(BlobChunkRow.blob_id)))
        return chunks | {path.name for path in files_of(self.world.desk)}


def files_of(desk: Desk) -> list[Path]:
    folder: Path = desk.stores.files.folder  # type: ignore[attr-defined]  # a FileStore
    return [path for path in folder.rglob("*") if path.is_file()]


@contextmanager
def emptied(desk: Desk) -> Iterator[World]:
    """A world of its own for each run of the machine."""
    with desk.db.writing() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    for path in files_of(desk):
        path.unlink()
    yield World(desk)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["files", "database"])
@pytest.mark.embedded
def test_collection_never_removes_what_a_row_refers_to(desk: Desk, store: str) -> None:
    class Run(Collection):
        def __init__(self) -> None:
            super().__init__()
            self.store = store
            with emptied(desk) as world:
                self.world = world

    run_state_machine_as_test(Run, settings=settings(
        max_examples=8, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck),
        print_blob=True,
    ))
