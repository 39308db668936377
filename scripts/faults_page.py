"""Write docs/faults.md from the tests of faults and the times that they measured. Run by `make docs`."""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "faults.md"
RESULTS: Final = ROOT / "benchmarks" / "results" / "faults.json"
TESTS: Final = ROOT / "tests" / "faults"

HEAD: Final = """\
# Faults

<!-- Written by `make docs` from the tests in tests/faults and from benchmarks/results/faults.json: change it there. -->

What can go wrong, and what a user sees of it. Each row was really provoked, by the test that it names, against real
processes: API, workers, forkservers, trainers, Valkey, SQLite or PostgreSQL, a folder or an S3 server behind a proxy
that makes it fail. After every test each job, log, attempt and artifact is looked at: no log has a gap, no job ended
twice, no result or artifact is there by half, and no stored bytes are without a row.

Seconds are from the fault, or from its end where it lasts, until what the service says is true again: the job runs
again, has ended, or is answered for. The tests have leases of 2 s (most of those on S3, of 4 s), a round of the reaper
every 0.5 s, and rings that are repeated after 1 s. By default these are 30, 10 and 30 s (`STILLHOUSE_LEASE_SECONDS`,
`STILLHOUSE_REAP_SECONDS`, `STILLHOUSE_RING_AGAIN_SECONDS`): where a row speaks of a lease, expect as much more.

SQLite has one lock for all who write: a process that is stopped (not killed) in the middle of a write keeps everybody
else from writing until it goes on. PostgreSQL ends the transaction of such a process after 10 s.
"""

FOOT: Final = """\
`make faults` provokes them all. `make faults ARGS="--measure 3"` measures them anew, and `make docs` writes this page.

`make chaos` queues 500 jobs and lets workers come and go at random for two minutes, while trainers, forkservers and
workers are killed, drained, stopped and continued, and the broker is restarted, flushed and cut off. Then it asks the
database, and a journal that the trainers kept beside it, whether each job was done, and done once. `ARGS="--seed 1"`
brings the same faults in the same order. `ARGS="--backends production"` takes PostgreSQL and S3 instead of SQLite and a
folder, and has them fail as well: the one restarted and cut off, the other out of reach or breaking off.

That a job which is killed in mid-training ends with the very weights of an undisturbed one is shown by the real engine
in `tests/e2e/test_kills.py`; here the engine is one that counts.
"""


@dataclass(frozen=True)
class Fault:
    """A row: what goes wrong, what a user sees of it, and the test that provokes it."""

    name: str
    sees: str
    test: str


def faults() -> Iterator[Fault]:
    """Every test with the marker `fault`, file by file."""
    for path in sorted(TESTS.glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{path.stem}")
        for name, function in vars(module).items():
            for mark in _marks(name, function):
                yield Fault(mark.args[0], mark.kwargs["sees"], f"{path.name}::{name}")


def page() -> str:
    """The whole page."""
    measured = json.loads(RESULTS.read_text("utf-8"))
    processors = " and of ".join(measured["processors"])
    taken = f"Measured on {measured['date']}, {measured['machine']['cores']} cores of {processors}."
    rows = [_row(fault, measured["recovery_seconds"]) for fault in faults()]
    head = ["| fault | what the user sees | median | worst | of | test |", "|---|---|---|---|---|---|"]
    return "\n".join([HEAD, *head, *rows, "", taken, "", FOOT])


def _row(fault: Fault, seconds: dict[str, list[float]]) -> str:
    times = seconds.get(fault.test.partition("::")[2], [])
    told = [f"{median(times):.1f} s", f"{max(times):.1f} s", str(len(times))] if times else ["", "", "0"]
    return f"| {' | '.join([fault.name, fault.sees, *told, f'`{fault.test}`'])} |"


def _marks(name: str, function: Callable[..., object]) -> list[Any]:
    marks = getattr(function, "pytestmark", []) if name.startswith("test_") else []
    return [mark for mark in marks if mark.name == "fault"]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
