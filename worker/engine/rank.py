"""One of several processes that train together. Started by the launcher: `python -m worker.engine.rank ORDER`."""

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from stillhouse.contract.events import Failed, SoftLabelsSaved, TrainerEvent
from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.status import Request
from worker.engine.checkpoint import FILE
from worker.engine.launch import EVENTS, REQUEST, RankOrder
from worker.engine.pipeline import Job, run_alone
from worker.engine.ranks import Ranks
from worker.engine.softlabels import RankFolder
from worker.engine.tether import tether


def main(path: Path) -> None:
    """Train this rank's share; the first one tells what happens."""
    tether()
    order = RankOrder.model_validate_json(path.read_bytes())
    # Held to the end, as the trainer does: whoever clears the folder up waits for the last rank.
    fcntl.flock(os.open(order.scratch, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # A start's own: a rank that comes early after a restart must not find addresses of ranks that are dead.
    path = order.scratch / f"store-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    store = dist.FileStore(str(path), size)  # type: ignore[attr-defined] # torch exports it without saying so
    ranks = Ranks(rank, size)
    device = order.devices[rank]
    torch.set_num_threads(order.threads)
    if device.startswith("cuda"):  # never executed where there is no GPU
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    saved = order.scratch / FILE
    job = Job(
        order.spec, order.inputs, order.scratch, device=device, requested=_request(order.scratch), ranks=ranks,
        store=RankFolder(order.scratch / "soft_labels", order.inputs, ranks),
    )
    tell = _teller(order.scratch / EVENTS) if ranks.is_first else _say_nothing
    try:
        # After a restart, from what this attempt has saved itself.
        for event in run_alone(job, saved if saved.exists() else order.checkpoint):
            if not isinstance(event, SoftLabelsSaved):  # these files stay here: their keys name no owner
                tell(event)
    except StillhouseError as error:  # all ranks meet it; beginning again would not help
        tell(Failed(failure=error.as_failure()))
    dist.destroy_process_group()


def _request(scratch: Path) -> Callable[[], Request | None]:
    """What is asked of the job, as the launcher's file says; the first rank's answer counts."""
    path = scratch / REQUEST

    def requested() -> Request | None:
        return Request(json.loads(path.read_text())) if path.exists() else None

    return requested


def _teller(path: Path) -> Callable[[TrainerEvent], None]:
    pipe = path.open("wb")

    def tell(event: TrainerEvent) -> None:
        # The separator begins a line: what a rank before this one left unfinished is cut off there.
        pipe.write(b"\x1e" + event.model_dump_json().encode() + b"\n")
        pipe.flush()

    return tell


def _say_nothing(_: TrainerEvent) -> None:
    return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
