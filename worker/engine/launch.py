"""Several processes for one job, by torchrun's elastic launcher on this machine.

This process only listens: the first rank writes its events to a named pipe, and reads a file for what is asked of it.
A rank that dies takes the others with it, and all begin again from the last checkpoint. When this process dies, the
kernel kills them all.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Final

import torch
from pydantic import BaseModel

from stillhouse.contract.events import LAST_WORDS, TRAINER_EVENT, TrainerEvent
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Request
from worker.engine.code import code_folder
from worker.engine.preflight import check_device
from worker.engine.tether import tethering

EVENTS: Final = "events.pipe"
REQUEST: Final = "request"
ORDER: Final = "order.json"
RENDEZVOUS: Final = "rendezvous"
MAX_RESTARTS: Final = 3
LOOK_SECONDS: Final = 0.1
# torch's TCP stores listen on every interface, ask nobody who they are, and what the launcher reads from its own it
# unpickles. Files do for one machine.
_ON_THIS_MACHINE: Final = {
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo",
}
_BLOCK: Final = 1 << 16


class RankOrder(BaseModel):
    """What every rank is told."""

    spec: JobSpec
    inputs: dict[str, Path]
    scratch: Path
    checkpoint: Path | None
    devices: list[str]
    threads: int


def launch(
    spec: JobSpec, inputs: Mapping[str, Path], scratch: Path, *, checkpoint: Path | None, device: str,
    requested: Callable[[], Request | None],
) -> Iterator[TrainerEvent]:
    """The job's events, from as many processes as devices are named with commas between them.

    They end with the thread that asks for the first event. Raises DeviceUnavailableError, and RuntimeError when the
    processes end without a last word.
    """
    devices = device.split(",")
    for each in devices:
        check_device(each)
    order = RankOrder(
        spec=spec, inputs=dict(inputs), scratch=scratch.absolute(), checkpoint=checkpoint, devices=devices,
        threads=torch.get_num_threads(),
    )
    (scratch / ORDER).write_text(order.model_dump_json(exclude_unset=True))
    os.mkfifo(scratch / EVENTS, 0o600)
    # For writing as well: the pipe then has no end while ranks come and go.
    pipe = os.open(scratch / EVENTS, os.O_RDWR | os.O_NONBLOCK)
    try:
        with _started(order) as ranks:
            for line in _lines(pipe, ranks, lambda: _pass_on(requested(), scratch)):
                event = TRAINER_EVENT.validate_json(line)
                yield event
                if isinstance(event, LAST_WORDS):
                    return
        raise RuntimeError(f"the ranks ended with status {ranks.returncode} and without a last word")
    finally:
        os.close(pipe)


@contextmanager
def _started(order: RankOrder) -> Iterator["subprocess.Popen[bytes]"]:
    """The launcher and its ranks; ended at the end."""
    command = [
        sys.executable, "-P", "-m", "worker.engine.agent", "--nnodes", "1",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", str(order.scratch / RENDEZVOUS), "--rdzv-conf", "store_type=file",
        "--nproc-per-node", str(len(order.devices)), "--max-restarts", str(MAX_RESTARTS), "--module",
        "worker.engine.rank", str(order.scratch / ORDER),
    ]
    environment = {
        **os.environ, **tethering(), "PYTHONPATH": code_folder(),
        "OMP_NUM_THREADS": str(order.threads), "TORCHELASTIC_ERROR_FILE": "", **_ON_THIS_MACHINE,
    }
    with subprocess.Popen(command, cwd=order.scratch, env=environment, stdin=subprocess.DEVNULL) as ranks:
        try:
            yield ranks
            ranks.wait()
        finally:
            ranks.terminate()


def _lines(pipe: int, ranks: "subprocess.Popen[bytes]", look: Callable[[], None]) -> Iterator[bytes]:
    """Whole lines from the pipe, until the launcher has ended and nothing is left."""
    rest = b""
    while True:
        has_ended = ranks.poll() is not None
        ready, _, _ = select([pipe], [], [], 0 if has_ended else LOOK_SECONDS)
        look()
        if ready:
            *lines, rest = (rest + os.read(pipe, _BLOCK)).split(b"\n")
            # A rank that was killed may have left half a line before the next one's first.
            yield from (line[line.rfind(b"\x1e") + 1 :] for line in lines)
        elif has_ended:
            return


def _pass_on(request: Request | None, scratch: Path) -> None:
    path = scratch / REQUEST
    if request is None or (path.exists() and json.loads(path.read_text()) == request.value):
        return
    partial = scratch / f"{REQUEST}.partial"
    partial.write_text(json.dumps(request.value))
    partial.rename(path)
