"""The rounds that every worker makes: jobs of lost workers go back, and queued jobs that nobody heard of are rung."""

import logging
import threading
import time

from app import queue
from app.artifacts import service as artifacts
from app.jobs import life
from app.jobs.life import HeldUpError
from app.retention import service as retention
from app.soft_labels import service as soft_labels
from stillhouse.contract.status import Kind
from worker import pulse
from worker.lease import OUTAGES
from worker.slots import Slots
from worker.workshop import Workshop

DAY = 24 * 3600.0
_TIDY_SECONDS = 3600.0

log = logging.getLogger(__name__)


def start(shop: Workshop) -> threading.Thread:
    """Make rounds by timer until the worker drains."""
    thread = threading.Thread(target=_rounds, args=(shop,), name="reaper", daemon=True)
    thread.start()
    return thread


def reap(shop: Workshop) -> None:
    """Take jobs from workers that are lost. Does nothing twice, whoever else does the same. Raises HeldUpError."""
    for job_id in life.reap(shop.db, shop.settings.max_losses, shop.settings.lease_seconds / 3):
        log.warning("job %s: its worker was lost", job_id, extra={"job_id": job_id})
        shop.numbers.acted("taken_back")
        shop.announcer.announce(job_id)


def ring_again(shop: Workshop) -> None:
    """Ring for queued jobs and plans that were not rung lately, no more than this worker has room for."""
    rooms: dict[Kind, Slots] = {"job": shop.devices, "plan": shop.plans}
    for kind, slots in rooms.items():
        if slots.num_free == 0:
            continue  # it looks by itself after each job
        for job_id, name in life.take_rings(
            shop.db, older_than_seconds=shop.settings.ring_again_seconds, limit=slots.num_free, kind=kind
        ):
            queue.ring(shop.settings.broker_url, name, job_id)
            shop.numbers.acted("rung")


def forget_plans(shop: Workshop) -> None:
    """Delete plans that nobody will ask for any more."""
    num_forgotten = life.forget_plans(shop.db, older_than_seconds=3600 * shop.settings.plan_hours)
    shop.numbers.acted("plan_forgotten", num_forgotten)
    if num_forgotten:
        log.info("%d old plans were deleted", num_forgotten)


def evict(shop: Workshop) -> None:
    """Drop soft labels that were not used for too long or take too much room, but none that a job uses."""
    with shop.db.writing() as session:
        dropped = soft_labels.evict(
            session, unused_seconds=shop.settings.soft_label_days * DAY, max_bytes=shop.settings.soft_label_bytes
        )
    shop.numbers.acted("soft_labels_dropped", dropped)
    if dropped:
        log.info("soft labels: %d dropped", dropped)


def drop_unfinished(shop: Workshop) -> None:
    """Drop what uploads left in the blob store, and what no row leads to: of a database that was restored, for one."""
    num_dropped = shop.stores.files.drop_unfinished(DAY)
    if num_dropped:
        log.info("blob store: %d unfinished uploads dropped", num_dropped)


def keep_house(shop: Workshop) -> None:
    """Drop what has been kept for long enough. One worker at a time does, when it is due."""
    for what, num in retention.run(shop.db, shop.settings).items():
        log.info("retention: %s: %d", what, num)


def _rounds(shop: Workshop) -> None:
    pause, tidied_at = 0.0, float("-inf")
    while not shop.draining.wait(pause):
        try:
            reap(shop)
            ring_again(shop)
            forget_plans(shop)
            evict(shop)
            keep_house(shop)
            shop.numbers.acted("blob_deleted", artifacts.sweep(shop.db, shop.stores))
            pulse.beat(shop.settings)
            shop.numbers.rounded(well=True)
            if time.monotonic() - tidied_at > _TIDY_SECONDS:
                tidied_at = time.monotonic()
                drop_unfinished(shop)
            pause = shop.settings.reap_seconds
        except (*OUTAGES, HeldUpError) as error:
            log.warning("no round of the reaper: %s", error)
            shop.numbers.rounded(well=False)
            # While the database was away nobody could renew: let the living do so first.
            pause = shop.settings.lease_seconds
