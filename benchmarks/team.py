"""The service as a team runs it, on PostgreSQL: watchers, submitters, workers; and MLflow's server as the yardstick.

MLflow's tracking server keeps the same kind of rows (a run, its metrics) on the same PostgreSQL, and is what teams run
today. Both are asked by the same closed-loop clients, in turn, with as many server processes.
"""

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from itertools import count
from multiprocessing import get_context
from statistics import quantiles
from typing import Any

import aiohttp
import httpx
import numpy as np

from app.jobs import life
from app.kit.database import Database
from benchmarks.load import Load, load, ratio_at_equal_p99
from benchmarks.results import publish, spread
from benchmarks.stack import KEY, Stack, running_mlflow, running_stack
from stillhouse.contract.events import Measured
from stillhouse.contract.status import Phase

APIS = 2
WORKERS = 20
WATCHERS = 1000
SUBMITTERS = 50
JOBS = 500
LADDER = (1, 4, 16, 50)
SECONDS = 4.0
ROUNDS = 3
VALUES = 10
HEADERS = {"Authorization": f"Bearer {KEY}"}
MIB = 1024 * 1024

Body = dict[str, Any]




def measure() -> dict[str, Any]:
    """All figures, in one run."""
    with running_stack(apis=APIS, workers=WORKERS) as stack:
        spec = _spec(stack)
        figures: dict[str, Any] = {"apis": APIS, "workers": WORKERS}
        figures["fleet"] = [asyncio.run(_fleet(stack, spec)) for _ in range(ROUNDS)]
        figures["watched"] = asyncio.run(_watched(stack, spec))
        with running_mlflow(stack.postgres, processes=APIS) as mlflow:
            figures["mlflow"] = _compared(stack, spec, mlflow)
    return figures


def _spec(stack: Stack) -> Body:
    """A job on 200 rows whose engine counts to 5 at once, and its data uploaded."""
    rows = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    file = io.BytesIO()
    np.savez(file, inputs=rows, labels=(rows[:, 0] > 0).astype(np.int64))
    answer = httpx.post(
        f"{stack.urls[0]}/artifacts", params={"kind": "data", "name": "rows.npz"}, content=file.getvalue(),
        headers=HEADERS, trust_env=False,
    )
    answer.raise_for_status()
    mlp = {"kind": "mlp", "hidden": [8]}
    return {
        "teacher": {"kind": "train", "architecture": mlp, "training": {"epochs": 1}},
        "student": mlp,
        "data": {"kind": "npz", "train": {"artifact": answer.json()["id"]}},
        "control": False,
        "device": "cpu",
        "labels": {"noop.steps": "5", "noop.wait": "0"},
    }


# The fleet: submitters that wait for their jobs.


async def _fleet(stack: Stack, spec: Body) -> Body:
    """Every submitter sends a job and watches it to its end, until all jobs are done."""
    submits: list[float] = []
    whole: list[float] = []
    numbers = iter(range(JOBS))
    async with _session() as http:
        began = time.perf_counter()
        await asyncio.gather(*(
            _submitter(http, stack.urls[number % APIS], spec, numbers, submits, whole) for number in range(SUBMITTERS)
        ))
        elapsed = time.perf_counter() - began
    return {
        "jobs": len(whole), "submitters": SUBMITTERS, "jobs_per_second": len(whole) / elapsed,
        "submit": _percentiles(submits), "submit_to_end": _percentiles(whole),
    }


async def _submitter(
    http: aiohttp.ClientSession, url: str, spec: Body, numbers: Iterator[int], submits: list[float], whole: list[float],
) -> None:
    for _ in numbers:
        began = time.perf_counter()
        job = await _post(http, f"{url}/jobs", spec)
        submits.append(time.perf_counter() - began)
        last = await _watch_to_the_end(http, f"{url}/jobs/{job['id']}/events")
        if "succeeded" not in last:
            raise AssertionError(f"job {job['id']} ended otherwise: {last}")
        whole.append(time.perf_counter() - began)


async def _watch_to_the_end(http: aiohttp.ClientSession, url: str) -> str:
    """The last event's data."""
    last = ""
    async with http.get(url, headers={"Accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"data:") and len(line) > len("data: {}\n"):
                last = line.decode()
    return last


# Watchers that hear nothing, and what reads and submits cost beside them.


async def _watched(stack: Stack, spec: Body) -> Body:
    waiting = spec | {"device": "cuda"}
    async with _session() as http:
        jobs = [await _post(http, f"{stack.urls[number % APIS]}/jobs", waiting) for number in range(20)]
        before = [api.memory_info().rss / MIB for api in stack.apis]
        ready = asyncio.Semaphore(0)
        logs = [f"{stack.urls[number % APIS]}/jobs/{jobs[number % 20]['id']}/events" for number in range(WATCHERS)]
        watchers = [asyncio.create_task(_watch(http, log, ready)) for log in logs]
        for _ in watchers:
            await ready.acquire()
        processor = sum(sum(api.cpu_times()[:2]) for api in stack.apis)
        began = time.perf_counter()
        await asyncio.sleep(5)
        idle = (sum(sum(api.cpu_times()[:2]) for api in stack.apis) - processor) / (time.perf_counter() - began)
        reads = await load(_reading(http, stack, jobs), clients=4, seconds=SECONDS)
        submits = await load(_creating(http, stack, waiting), clients=SUBMITTERS, seconds=SECONDS)
        after = [api.memory_info().rss / MIB for api in stack.apis]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return {
        "watchers": WATCHERS, "read": asdict(reads), "submit": asdict(submits),
        "idle_processor_share": idle, "api_rss_mib": {"before": before, "after": after},
    }


async def _watch(http: aiohttp.ClientSession, url: str, ready: asyncio.Semaphore) -> None:
    async with http.get(url, headers={"Accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        async for _ in answer.content:
            ready.release()
            break
        await asyncio.Event().wait()


# Beside MLflow.


def _compared(stack: Stack, spec: Body, mlflow: str) -> Body:
    """Ladders of both for every kind of request, in turn, and the ratio at equal p99 of each round."""
    rounds = [_round(stack, spec, mlflow) for _ in range(ROUNDS)]
    figures: Body = {"ladder": LADDER, "seconds": SECONDS, "values_per_log": VALUES, "rounds": rounds}
    for kind in ("create", "read", "log"):
        figures[f"{kind}_ratio"] = spread([one[kind]["equal_p99"]["ratio"] for one in rounds])
    return figures


def _round(stack: Stack, spec: Body, mlflow: str) -> Body:
    found: Body = {}
    for kind in ("create", "read", "log"):
        ours = [_ours(kind, stack, spec, clients) for clients in LADDER]
        theirs = [asyncio.run(_theirs(kind, mlflow, clients)) for clients in LADDER]
        found[kind] = {
            "ours": [asdict(one) for one in ours], "mlflow": [asdict(one) for one in theirs],
            "equal_p99": ratio_at_equal_p99(ours, theirs),
        }
    return found


def _ours(kind: str, stack: Stack, spec: Body, clients: int) -> Load:
    if kind == "log":
        return _logged(stack, spec, clients)
    return asyncio.run(_requested(kind, stack, spec | {"device": "cuda"}, clients))


async def _requested(kind: str, stack: Stack, spec: Body, clients: int) -> Load:
    async with _session() as http:
        if kind == "create":
            return await load(_creating(http, stack, spec), clients=clients, seconds=SECONDS)
        jobs = [await _post(http, f"{stack.urls[0]}/jobs", spec) for _ in range(20)]
        return await load(_reading(http, stack, jobs), clients=clients, seconds=SECONDS)


def _creating(http: aiohttp.ClientSession, stack: Stack, spec: Body) -> Callable[[int], Awaitable[None]]:
    async def create(number: int) -> None:
        await _post(http, f"{stack.urls[number % APIS]}/jobs", spec)

    return create


def _reading(http: aiohttp.ClientSession, stack: Stack, jobs: list[Body]) -> Callable[[int], Awaitable[None]]:
    async def read(number: int) -> None:
        async with http.get(f"{stack.urls[number % APIS]}/jobs/{jobs[number % len(jobs)]['id']}") as answer:
            answer.raise_for_status()
            await answer.read()

    return read


async def _theirs(kind: str, url: str, clients: int) -> Load:
    api = f"{url}/api/2.0/mlflow"
    async with _session() as http:
        runs = [(await _post(http, f"{api}/runs/create", _run()))["run"]["info"]["run_id"] for _ in range(50)]
        steps = count(1)

        async def create(_: int) -> None:
            await _post(http, f"{api}/runs/create", _run())

        async def read(number: int) -> None:
            async with http.get(f"{api}/runs/get", params={"run_id": runs[number]}) as answer:
                answer.raise_for_status()
                await answer.read()

        async def log(number: int) -> None:
            step, now = next(steps), int(time.time() * 1000)
            metrics = [
                {"key": f"metric_{index}", "value": 1 / step, "timestamp": now, "step": step} for index in range(VALUES)
            ]
            await _post(http, f"{api}/runs/log-batch", {"run_id": runs[number], "metrics": metrics})

        return await load({"create": create, "read": read, "log": log}[kind], clients=clients, seconds=SECONDS)


def _run() -> Body:
    tags = [{"key": f"noop.{name}", "value": "5"} for name in ("steps", "wait")]
    return {"experiment_id": "0", "start_time": int(time.time() * 1000), "run_name": "bench", "tags": tags}


# Logging: not a request of ours. A worker writes what its trainer tells straight into the database.


def _logged(stack: Stack, spec: Body, clients: int) -> Load:
    """So many jobs at once, each writing one event of some values after the other, from two processes."""
    claims = _claims(stack, spec, clients)
    shares = [claims[start::APIS] for start in range(min(APIS, clients))]
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        found = pool.map(_log_share, [stack.database_url] * len(shares), shares)
        return Load.of(clients, SECONDS, [value for part in found for value in part])


def _claims(stack: Stack, spec: Body, clients: int) -> list[life.Claim]:
    """Claims of new jobs in a queue that no worker here serves."""
    db = Database(stack.database_url)
    with httpx.Client(headers=HEADERS, trust_env=False) as http:
        for _ in range(clients):
            http.post(f"{stack.urls[0]}/jobs", json=spec | {"device": "cuda"}).raise_for_status()
    claims = [life.claim(db, queues=["gpu"], worker="bench", lease_seconds=3600) for _ in range(clients)]
    db.dispose()
    return [claim for claim in claims if claim is not None]


def _log_share(database_url: str, claims: list[life.Claim]) -> list[float]:
    db = Database(database_url)
    with ThreadPoolExecutor(len(claims)) as pool:
        found = list(pool.map(_log_one, [db] * len(claims), claims))
    db.dispose()
    return [value for part in found for value in part]


def _log_one(db: Database, claim: life.Claim) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS
    for step in count(1):
        began = time.perf_counter()
        if began >= end:
            break
        values = {f"metric_{index}": 1 / step for index in range(VALUES)}
        life.record(db, claim, [Measured(phase=Phase.DISTILLING, step=step, values=values)])
        latencies.append(time.perf_counter() - began)
    return latencies


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers=HEADERS, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None),
    )


async def _post(http: aiohttp.ClientSession, url: str, body: Body) -> Body:
    async with http.post(url, json=body) as answer:
        text = await answer.text()
        if not answer.ok:
            raise AssertionError(f"{url}: {answer.status} {text}")
        found: Body = json.loads(text)
        return found


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100)
    return {"p50_ms": 1000 * cuts[49], "p99_ms": 1000 * cuts[98]}


if __name__ == "__main__":
    publish("team", measure())
