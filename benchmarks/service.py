"""The service in local mode: time to the first step, submits, reads under watchers, uploads, memory of the API.

And as a team runs it, beside MLflow: `benchmarks.team`.
"""

import asyncio
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx
import numpy as np
import psutil

from benchmarks import team
from benchmarks.results import publish, spread
from stillhouse import Client
from stillhouse.contract.events import Measured, Progressed
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Phase
from stillhouse.local import running

MIB = 1024 * 1024
GIB = 1024 * MIB
WATCHERS = 200


def small_job(client: Client, device: str = "auto", epochs: int = 3) -> JobSpec:
    """A job on 2,000 rows of 20 columns whose teacher is trained on the fly in one short epoch."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 20)).astype(np.float32)
    file = io.BytesIO()
    np.savez(file, inputs=rows, labels=(rows[:, 0] > 0).astype(np.int64))
    with tempfile.NamedTemporaryFile(suffix=".npz") as named:
        Path(named.name).write_bytes(file.getvalue())
        data = client.upload(Path(named.name), kind="data", name="rows.npz").id
    return JobSpec.model_validate({
        "teacher": {"kind": "train", "architecture": {"kind": "mlp", "hidden": [16]}, "training": {"epochs": 1}},
        "student": {"kind": "mlp", "hidden": [8]},
        "data": {"kind": "npz", "train": {"artifact": data}},
        "training": {"epochs": epochs},
        "control": False,
        "device": device,
    })


def submit_to_first_step(client: Client, spec: JobSpec) -> float:
    """Milliseconds from POST /jobs to the arrival of the first event of a training step."""
    began = time.perf_counter()
    job = client.submit(spec)
    for recorded in job.watch():
        event = recorded.event
        if isinstance(event, Progressed | Measured) and event.phase in {Phase.TEACHER, Phase.DISTILLING}:
            elapsed = time.perf_counter() - began
            job.wait()
            return elapsed * 1000
    raise AssertionError(f"job {job.id} never made a step")


def submits_per_second(client: Client, spec: JobSpec, count: int = 400) -> float:
    """Accepted submits per second by four clients, of jobs that no worker here takes."""
    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: client.submit(spec), range(count)))
    rate = count / (time.perf_counter() - began)
    for job in jobs:
        job.cancel()
    return rate


async def watch(http: httpx.AsyncClient, path: str, ready: asyncio.Semaphore) -> None:
    """One watcher: reads server-sent events until it is cancelled or the job ends."""
    headers = {"Accept": "text/event-stream"}
    async with http.stream("GET", f"{path}/events", headers=headers, timeout=None) as response:
        async for _ in response.aiter_bytes():
            ready.release()


async def reads_under_watchers(url: str, key: str, job_id: str, count: int = 1000) -> list[float]:
    """Milliseconds of each GET /jobs/{id} while the watchers of that job listen."""
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits) as http:
        ready = asyncio.Semaphore(0)
        watchers = [asyncio.create_task(watch(http, f"/jobs/{job_id}", ready)) for _ in range(WATCHERS)]
        for _ in watchers:
            await ready.acquire()
        async with httpx.AsyncClient(base_url=url, headers=headers) as reader:
            times = [await one_read(reader, job_id) for _ in range(count)]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return times


async def one_read(http: httpx.AsyncClient, job_id: str) -> float:
    """Milliseconds of one GET /jobs/{id}."""
    began = time.perf_counter()
    (await http.get(f"/jobs/{job_id}")).raise_for_status()
    return (time.perf_counter() - began) * 1000


def write_gib(path: Path) -> None:
    """A safetensors file of one GiB of random bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [GIB], "data_offsets": [0, GIB]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(1024):
            file.write(os.urandom(MIB))


def plain_write_seconds(source: Path, target: Path) -> float:
    """Seconds of a plain streamed copy with sha256 and fsync: the limit of an upload."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as copy:
        while chunk := file.read(MIB):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    elapsed = time.perf_counter() - began
    target.unlink()
    return elapsed


def upload_seconds(client: Client, source: Path) -> float:
    """Seconds of the upload as a client sees it; the artifact is deleted again."""
    began = time.perf_counter()
    artifact = client.upload(source, kind="teacher", name="one-gib.safetensors")
    elapsed = time.perf_counter() - began
    client.delete_artifact(artifact.id)
    return elapsed


def api_process() -> psutil.Process:
    """The API that `running` started."""
    children = psutil.Process().children(recursive=True)
    serving = [child for child in children if child.cmdline()[-2:] == ["-m", "app"]]
    assert len(serving) == 1, [child.cmdline() for child in children]
    return serving[0]


@contextmanager
def resident_memory(figures: dict[str, object]) -> Iterator[None]:
    """The API's resident memory before and after, in MiB."""
    api = api_process()
    before = api.memory_info().rss / MIB
    yield
    after = api.memory_info().rss / MIB
    figures["api_rss_mib"] = {"before": before, "after": after, "growth": after - before}


def main() -> None:
    """Measure everything once, in local mode, and publish."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, running(home=Path(folder) / "home", port=0) as service:
        client = Client(service.url, service.key)

        source = Path(folder) / "one-gib.safetensors"
        write_gib(source)
        with resident_memory(figures):
            pairs = [
                (upload_seconds(client, source), plain_write_seconds(source, Path(folder) / "copy")) for _ in range(3)
            ]
        figures["upload_seconds_per_gib"] = spread([upload for upload, _ in pairs])
        figures["plain_write_seconds_per_gib"] = spread([plain for _, plain in pairs])
        figures["upload_ratio"] = median(upload / plain for upload, plain in pairs)
        source.unlink()

        spec = small_job(client)
        submit_to_first_step(client, spec)
        first_steps = [submit_to_first_step(client, spec) for _ in range(15)]
        figures["submit_to_first_step_p50_ms"] = median(first_steps)
        figures["submit_to_first_step_ms"] = spread(first_steps)

        rates = [submits_per_second(client, small_job(client, device="cuda")) for _ in range(3)]
        figures["submits_per_second"] = median(rates)

        watched = client.submit(small_job(client, epochs=5000))
        reads = asyncio.run(reads_under_watchers(service.url, service.key, watched.id))
        watched.cancel()
        figures["get_job_p50_ms"] = median(reads)
        figures["get_job_p99_ms"] = quantiles(reads, n=100)[98]
        figures["watchers"] = WATCHERS
    publish("service", figures)
    publish("team", team.measure())


if __name__ == "__main__":
    main()
