"""A workshop in this process: supervisors, leases and real trainers, without a broker."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.kit.database import Database
from app.settings import Settings
from app.storage.base import BlobStore
from app.storage.database import DatabaseStore
from app.storage.stores import Stores, open_files
from tests.fixtures.jobs import Desk
from worker.child import warm_up
from worker.environment import scrubbed
from worker.workshop import Workshop, open_workshop


@pytest.fixture(scope="session")
def forkserver() -> None:
    """The forkserver of this process, with all engines of the tests."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(scrubbed(before))
    try:
        warm_up(
            "tests.fixtures.noop_engine", "tests.fixtures.hostile_engine", "tests.fixtures.labelling_engine",
            "tests.fixtures.prying_engine",
        )
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def config(tmp_path: Path, any_url: str, blob_settings: dict[str, Any]) -> Settings:
    """Settings of a small quick worker, whose broker is out of reach."""
    return Settings(
        database_url=any_url,
        broker_url=f"redis+socket://{tmp_path}/nobody.sock",
        **blob_settings,
        scratch_folder=tmp_path / "scratch",
        cache_folder=tmp_path / "cache",
        engine="tests.fixtures.noop_engine",
        lease_seconds=2.0,
        grace_seconds=2.0,
        max_losses=3,
        min_free_bytes=0,
        sandbox="required",
    )


@pytest.fixture
def shop(forkserver: None, config: Settings) -> Iterator[Workshop]:  # noqa: ARG001 - a trainer comes from it
    """A worker without Celery."""
    opened = open_workshop(config, open_files(config))
    yield opened
    opened.announcer.close()
    opened.stores.close()
    opened.db.dispose()


@pytest.fixture
def office(any_url: str, files: BlobStore) -> Iterator[Desk]:
    """Submits jobs to the shop's database."""
    db = Database(any_url)
    yield Desk(db, Stores(files=files, database=DatabaseStore(db)))
    db.dispose()
