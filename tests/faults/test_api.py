"""The API holds nothing that its successor does not find again."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from stillhouse import Client
from stillhouse.contract.status import Status
from tests.fixtures.fleet import Fleet, answers
from tests.fixtures.recovery import Recovery
from tests.fixtures.service import ADMIN_KEY, OWNER, bearer
from tests.fixtures.waiting import wait_until

fault = pytest.mark.fault


@fault(
    "SIGKILL of the API while it is watched and uploaded to, then a new start",
    sees="jobs go on; a watch goes on without a gap; the upload fails, leaves nothing, and is to be sent again",
)
def test_sigkill_of_the_api(fleet: Fleet, recovery: Recovery, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    api = fleet.start_api(port)
    fleet.start_worker()
    wait_until(lambda: answers(url))
    job_id = fleet.desk.submit(OWNER, labels={"noop.steps": "100", "noop.wait": "0.05"})
    fleet.ring(job_id)
    seen: list[int] = []
    killed = threading.Event()

    def watch() -> None:
        with Client(url, ADMIN_KEY) as client:
            seen.extend(line.seq for line in client.job(job_id).watch())

    def endless() -> Iterator[bytes]:
        yield bytes(2**20)
        killed.wait(60)
        while True:
            yield bytes(2**20)

    def upload() -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(
                f"{url}/artifacts?kind=data", headers=bearer(ADMIN_KEY), content=endless(), trust_env=False, timeout=60
            )

    threads = [threading.Thread(target=watch), threading.Thread(target=upload)]
    for thread in threads:
        thread.start()
    incoming = fleet.folder / "blobs" / "incoming"
    wait_until(lambda: any(path.stat().st_size for path in incoming.iterdir()))
    fleet.wait_for_step(job_id, 12)
    api.kill()
    api.wait()
    killed.set()
    recovery.begins()
    fleet.start_api(port)
    recovery.ends(lambda: answers(url))
    fleet.wait_for(job_id, Status.SUCCEEDED)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    row = fleet.desk.row(job_id)
    assert row.attempt == 1
    assert seen == list(range(1, row.last_seq + 1)), "the watcher missed nothing, and saw nothing twice"
    with Client(url, ADMIN_KEY) as client:
        assert {found.kind for found in client.artifacts()} == {"data", "model"}
        assert sum(1 for found in client.artifacts(kind="data")) == 1
