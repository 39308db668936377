"""`python -m app doctor` against real back ends, sound ones and broken ones: the words that it finds."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from sqlalchemy import func, make_url, select, text, update

from app.doctor.examining import examine
from app.kit.clock import now
from app.kit.database import Database
from app.retention import service as retention
from app.retention.models import ChoreRow
from app.settings import Settings
from app.storage.models import BlobChunkRow
from stillhouse.contract.findings import Finding
from tests.fixtures.jobs import Desk
from tests.fixtures.postgres import Postgres, own_postgres
from tests.fixtures.s3 import ACCESS_KEY, READER_KEY, READER_SECRET, S3, SECRET_KEY
from tests.integration.doctor.conftest import Look

ROOT = Path(__file__).parents[3]
# As the commands do it, but as somebody for whom the rights of files hold: root is bound by them without capabilities.
_UNPRIVILEGED = """
import os, sys
from worker import sandbox
os.geteuid() or sandbox._drop_capabilities(None)
from app.__main__ import main
sys.exit(main(["doctor", *sys.argv[1:]]))
"""


def states(found: dict[str, Finding]) -> dict[str, str]:
    return {check: finding.state for check, finding in found.items()}


def test_sound_back_ends_are_found_well_and_left_as_they_were(
    look: Look, valkey: "Redis", database_url: str, database: Database, blob_settings: dict[str, Any]
) -> None:
    keys = valkey.dbsize()
    found = look(database_url=database_url, **blob_settings)
    parts = {"store, parts"} if blob_settings["blob_url"].startswith("s3:") else set()
    checks = {
        "settings", "database", "database, schema", "database, writing", "clock", "broker", "broker, keeping",
        "broker, doorbell", "store", "workers", "disk", *parts,
    }
    assert states(found) == {**dict.fromkeys(checks, "ok"), "workers": "warning"}
    assert "python -m worker" in str(found["workers"].advice)
    name = "PostgreSQL" if database_url.startswith("postgresql") else "SQLite"
    assert found["database"].message.startswith(name)
    assert found["broker"].message.startswith("Valkey")
    assert valkey.dbsize() == keys
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(BlobChunkRow)) == 0


def test_it_leaves_no_file_in_the_store(look: Look, sqlite_url: str, s3: S3, tmp_path: Path) -> None:
    look(database_url=sqlite_url)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    look(blob_url=s3.url("doctor"), s3_access_key=ACCESS_KEY, s3_secret_key=SECRET_KEY)
    assert s3.keys("doctor") == set()


@pytest.mark.embedded
def test_a_database_that_is_not_there_or_not_of_this_release(look: Look, sqlite_url: str, tmp_path: Path) -> None:
    missing = look(database_url=f"sqlite:///{tmp_path}/none.db")
    assert missing["database"].state == "failed"
    assert "app migrate" in str(missing["database"].advice)
    assert missing["workers"].state == "skipped"
    assert not (tmp_path / "none.db").exists()
    for url in ("nonsense:hidden", "mysql://ann:hidden@localhost/x"):  # pragma: allowlist secret
        nothing = look(database_url=url)
        assert "postgresql+psycopg://" in str(nothing["database"].advice)
        assert "hidden" not in str(nothing)
    database = Database(sqlite_url)
    for revision, told in (("0001", "an earlier release"), ("9999", "a release that this one does not know")):
        with database.writing() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        schema = look(database_url=sqlite_url)["database, schema"]
        assert schema.state == "failed"
        assert told in schema.message
        assert ("app migrate" in str(schema.advice)) == (revision == "0001")
    with database.writing() as session:
        session.execute(text("DELETE FROM alembic_version"))
    database.dispose()
    assert "no tables yet" in look(database_url=sqlite_url)["database, schema"].message


def test_a_database_that_cannot_be_used(look: Look, postgres: Postgres, postgres_with_schema: str) -> None:
    absent = look(database_url=postgres.url_of("nowhere"))
    assert states(absent)["database"] == "failed"
    assert "no such database" in absent["database"].message
    reader = make_url(postgres_with_schema).update_query_dict({"options": "-crole=pg_read_all_data"})
    writing = look(database_url=reader.render_as_string(hide_password=False))["database, writing"]
    assert writing.state == "failed"
    assert "permission denied" in writing.message
    gone = look(database_url="postgresql+psycopg://ann:hidden-password@127.0.0.1:1/x")  # pragma: allowlist secret
    assert "nothing listens there" in gone["database"].message


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """URL of a PostgreSQL that asks for a password; a wrong one is to be put in."""
    with own_postgres() as server:
        with closing(psycopg.connect(server.postgres.url.replace("+psycopg", ""), autocommit=True)) as connection:
            connection.execute("CREATE ROLE ann LOGIN PASSWORD 'the right one'")
            (server.folder / "data" / "pg_hba.conf").write_text("local all all scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        yield f"postgresql+psycopg://ann:%s@/postgres?host={server.folder}"  # pragma: allowlist secret


def test_a_wrong_password_is_told_and_not_repeated(look: Look, guarded: str, valkey: "Redis", broker: str) -> None:
    valkey.acl_setuser("guest", enabled=True, passwords=["+the right one"], categories=["+@all"], keys=["*"])
    found = look(
        database_url=guarded % "wrong-secret",
        broker_url=f"redis+socket://guest:wrong-secret@{broker}",  # pragma: allowlist secret
    )
    assert "refuses the user or the password" in found["database"].message
    assert "STILLHOUSE_DATABASE_URL" in str(found["database"].advice)
    assert found["broker"].message == "The broker refuses the user or the password."
    assert "wrong-secret" not in str(found)


@pytest.mark.embedded
def test_a_broker_that_is_away_or_set_up_wrongly(
    look: Look, sqlite_url: str, valkey: "Redis", broker: str, tmp_path: Path
) -> None:
    def seen(broker_url: str = f"redis+socket://{broker}") -> dict[str, Finding]:
        return look(database_url=sqlite_url, broker_url=broker_url)

    away = seen(f"redis+socket://{tmp_path}/nothing.sock")["broker"]
    assert away.state == "failed"
    assert "out of reach" in away.message
    assert seen("amqp://localhost")["broker"].state == "failed"
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    assert "maxmemory-policy allkeys-lru" in seen()["broker, keeping"].message
    assert seen()["broker, keeping"].state == "warning"
    valkey.config_set("maxmemory-policy", "noeviction")
    valkey.config_set("maxmemory", 1)
    assert seen()["broker, keeping"].state == "failed"
    valkey.config_set("maxmemory", 0)
    valkey.acl_setuser("guest", enabled=True, nopass=True, categories=["+@all"], keys=["*"], reset_channels=True)
    doorbell = seen(f"redis+socket://guest:any-at-all@{broker}")["broker, doorbell"]
    assert doorbell.state == "warning"
    assert "stillhouse:job:" in str(doorbell.advice)


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("bucket", "access", "secret", "told"),
    [
        ("nowhere", ACCESS_KEY, SECRET_KEY, "There is no such bucket"),
        ("stillhouse", "nobody", SECRET_KEY, "The access key is not known"),
        ("stillhouse", ACCESS_KEY, "wrong-secret", "The secret key does not belong to the access key"),
        ("stillhouse", READER_KEY, READER_SECRET, "The credentials may not do this"),
    ],
)
def test_a_bucket_that_cannot_be_used(look: Look, s3: S3, bucket: str, access: str, secret: str, told: str) -> None:
    found = look(blob_url=s3.url(bucket=bucket), s3_access_key=access, s3_secret_key=secret)
    assert found["store"].state == "failed"
    assert told in found["store"].message
    assert secret not in str(found)


@pytest.mark.embedded
def test_stores_that_are_away_full_or_none_at_all(look: Look) -> None:
    keys = {"s3_access_key": "a-key", "s3_secret_key": "a-secret"}  # pragma: allowlist secret
    away = look(blob_url="s3://bucket?endpoint=http://ann:hidden@127.0.0.1:1", **keys)["store"]
    assert "out of reach" in away.message
    assert "hidden" not in str(away)
    full = look(min_free_bytes=2**62)
    assert "STILLHOUSE_MIN_FREE_BYTES" in str(full["store"].advice)
    assert full["disk"].state == "failed"
    assert "file:FOLDER" in look(blob_url="ftp://x")["store"].message


@pytest.mark.embedded
def test_folders_that_are_read_only(sqlite_url: str, broker: str, tmp_path: Path) -> None:
    (tmp_path / "blobs" / "incoming").mkdir(parents=True)
    for path in (tmp_path / "stillhouse.db", tmp_path / "blobs" / "incoming", tmp_path):
        path.chmod(0o500)
    env = {
        **os.environ, "STILLHOUSE_DATABASE_URL": sqlite_url, "STILLHOUSE_BROKER_URL": f"redis+socket://{broker}",
        "STILLHOUSE_BLOB_URL": f"file:{tmp_path / 'blobs'}", "STILLHOUSE_MIN_FREE_BYTES": "0",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _UNPRIVILEGED, "--json"], cwd=ROOT, env=env, check=False, capture_output=True,
            text=True, timeout=60,
        )
    finally:
        tmp_path.chmod(0o700)
    assert done.returncode == 1, done.stderr
    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["store"]["state"] == "failed"
    assert "Permission denied" in found["store"]["message"]
    wrong = [finding for check, finding in found.items() if check.startswith("database") and finding["advice"]]
    assert [finding["state"] for finding in wrong] == ["failed"]
    assert "write" in wrong[0]["advice"]


@pytest.mark.embedded
def test_settings_that_are_none_are_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_PORT", "hidden-value")
    monkeypatch.setenv("STILLHOUSE_SLOTS", "0")
    found = examine(Settings)
    assert not found.is_well
    assert [finding.message.partition(":")[0] for finding in found.findings] == ["STILLHOUSE_PORT", "STILLHOUSE_SLOTS"]
    monkeypatch.setenv("STILLHOUSE_QUEUES", "hidden-value")
    (finding,) = examine(Settings).findings
    assert "queues" in finding.message
    assert "hidden-value" not in str(found) + str(finding)


def test_workers_are_told_by_what_they_leave(look: Look, desk: Desk, database_url: str) -> None:
    def seen(check: str) -> Finding:
        return look(database_url=database_url)[check]

    job_id = desk.submit(queue="gpu")
    assert seen("queue gpu").state == "ok"
    desk.set(job_id, queued_at=now(-3600))
    alone = seen("queue gpu")
    assert alone.state == "warning"
    assert "1 job waiting, the oldest queued 60 min " in alone.message
    assert 'STILLHOUSE_QUEUES=["gpu"]' in str(alone.advice)
    desk.claim(queue="gpu")
    assert seen("queue gpu").message == "Nothing waits; 1 running on 1 worker."
    retention.run(desk.db, Settings(retention_seconds=600))
    assert seen("workers").state == "ok"
    with desk.db.writing() as session:
        session.execute(update(ChoreRow).values(due_at=now(-3600)))
    assert "No worker has made its rounds" in seen("workers").message
