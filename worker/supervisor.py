"""One job's life in a worker: claim, stage, train in a child, record, conclude, let go."""

import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy.orm import Session

from app import queue
from app.artifacts import service as artifacts
from app.jobs import life
from app.jobs.life import Claim, FencedError
from app.kit import logs
from app.storage.base import RefusedError
from stillhouse.contract.events import (
    LAST_WORDS,
    CheckpointSaved,
    Failed,
    Finished,
    Planned,
    SoftLabelsSaved,
    Stopped,
    TrainerEvent,
)
from stillhouse.contract.failures import (
    NotFoundError,
    OutOfMemoryError,
    StagingFailedError,
    StillhouseError,
    StorageFullError,
    TrainerCrashedError,
    TrainerStalledError,
    UnavailableError,
    WorkerLostError,
)
from stillhouse.contract.lending import Wanted
from stillhouse.contract.spec import JobSpec
from stillhouse.contract.status import Phase, Request, Status
from worker import recorder, results
from worker.attempt import Attempt
from worker.child import Child
from worker.kills import num_memory_kills
from worker.lease import OUTAGES, AskedToStopError, Lease
from worker.lending import Lender
from worker.limits import Limits
from worker.orders import LogStyle, Order, ProtocolError, Word
from worker.pace import Pace
from worker.recorder import Inbox
from worker.scratch import attempt_folder
from worker.slots import Slots
from worker.staging import Input
from worker.version import CODE_VERSION
from worker.workshop import Workshop

_LOOK_SECONDS: Final = 0.1
_STAGING_SECONDS: Final = 60.0
_TRACEBACK_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lost:
    """The trainer ended without a last word, or could not begin. The failure is what it comes to after many losses."""

    reason: str
    failure: type[StillhouseError] = WorkerLostError


LastWord = Finished | Planned | Failed | Stopped
Outcome = LastWord | Lost


def serve(shop: Workshop, rung: str) -> None:
    """Run queued jobs one after the other while there are any, since somebody rang for this queue."""
    of_plans = [queue.plans_of(name) for name in shop.settings.queues]
    slots, served = (shop.plans, of_plans) if rung in of_plans else (shop.devices, shop.settings.queues)
    queues = sorted(served, key=lambda name: name != rung)
    try:
        while not shop.draining.is_set() and _run_next(shop, queues, slots):
            pass
    except OUTAGES as error:
        log.warning("no job was claimed: %s", error)


def _run_next(shop: Workshop, queues: Sequence[str], slots: Slots) -> bool:
    """Run the best queued job; False when there is none, or when it takes more slots than are free.

    Then nothing narrower is taken either, for as long as that job waits: what others release adds up to what it takes.
    """
    for name in queues:
        width = life.next_width(
            shop.db, queues=[name], max_devices=slots.num, max_running=shop.settings.max_running_jobs
        )
        if width is None:
            continue
        held = slots.take(width)
        if held is None:
            return False
        try:
            _run(shop, name, held)
        finally:
            slots.release(held)
        _call(shop, len(held) - 1)
        return True
    return False


def _call(shop: Workshop, num_others: int) -> None:
    """Ring for so many more queued jobs: one thread held several slots, and looks for one job now."""
    if num_others:
        for job_id, name in life.take_rings(shop.db, older_than_seconds=0, limit=num_others):
            queue.ring(shop.settings.broker_url, name, job_id)


def _run(shop: Workshop, name: str, held: tuple[int, ...]) -> None:
    """Run the best queued job that takes just these slots, if another worker has not been quicker."""
    claim = life.claim(
        shop.db, queues=[name], worker=shop.name, lease_seconds=shop.settings.lease_seconds, num_devices=len(held),
        max_running=shop.settings.max_running_jobs,
    )
    if claim is None:
        return
    shop.numbers.claimed(name)
    supervise(shop, claim, ",".join(_device(name, slot) for slot in held))
    if shop.draining.is_set():
        queue.ring(shop.settings.broker_url, name, claim.job_id)


def _device(name: str, slot: int) -> str:
    """The device of a slot for what comes from a queue. Plans have one slot, so theirs is the first GPU."""
    return f"cuda:{slot}" if name in {"gpu", queue.plans_of("gpu")} else "cpu"


def supervise(shop: Workshop, claim: Claim, device: str) -> None:
    """Carry out one attempt, to its end or until the job is somebody else's."""
    with logs.about(
        request_id=claim.request_id, job_id=claim.job_id, attempt=claim.attempt, phase=Phase.STAGING
    ):
        _supervise(shop, claim, device)


def _supervise(shop: Workshop, claim: Claim, device: str) -> None:
    shop.announcer.announce(claim.job_id)
    log.info("job %s: attempt %d", claim.job_id, claim.attempt)
    spec = JobSpec.model_validate_json(json.dumps(claim.spec))
    try:
        with ExitStack() as stack:
            folder, printed = stack.enter_context(
                attempt_folder(shop.settings.scratch_folder, f"{claim.job_id}-{claim.attempt}")
            )
            save_log = partial(printed.save, partial(_write_log, shop, claim))
            lease = stack.enter_context(Lease(
                shop.db, claim, seconds=shop.settings.lease_seconds, grace_seconds=shop.settings.grace_seconds,
                draining=shop.draining, on_renewal=save_log, count=shop.numbers.renewed,
            ))
            pace = Pace(shop.numbers, is_resumed=claim.checkpoint is not None)
            limits = Limits(spec, claim, shop.settings)
            attempt = Attempt(shop, claim, lease, folder, printed, device, pace, spec, limits)
            try:
                outcome = _carry_out(attempt)
            finally:  # also when the job is somebody else's: the log is this attempt's
                _save_log(attempt)
            _conclude(attempt, outcome)
    except FencedError:
        log.warning("job %s: taken away from attempt %d", claim.job_id, claim.attempt)
        shop.numbers.attempted("fenced")
    except OUTAGES:
        shop.numbers.attempted("let_go")
        log.exception("job %s: let go; the lease will run out", claim.job_id)


def _carry_out(attempt: Attempt) -> Outcome:
    """Stage and train. Raises FencedError when the job is no longer ours; nothing runs any more then."""
    with ExitStack() as stack:
        try:
            attempt.check()
            order = _ordered(attempt, stack)
            attempt.check()
            child = attempt.lease.insist(lambda: _started(attempt, order), _STAGING_SECONDS)
            return _hear_out(attempt, child, Lender(attempt, stack, order.lent))
        except AskedToStopError as asked:
            return Stopped(request=asked.request)
        except OUTAGES as error:
            request = attempt.lease.stop_request()
            return Stopped(request=request) if request else Lost(str(error))
        except StillhouseError as error:
            return Failed(failure=error.as_failure())
        except ProtocolError as error:
            log.exception("job %s: the trainer broke the protocol", attempt.claim.job_id)
            return Failed(failure=TrainerCrashedError(f"The trainer was stopped: {error}.").as_failure())


def _ordered(attempt: Attempt, stack: ExitStack) -> Order:
    """Stage until it works: whoever else took the job could not reach the store either.

    Raises AskedToStopError, FencedError, StagingFailedError, and what else goes wrong for too long on this worker.
    """
    while True:
        try:
            return attempt.lease.insist(lambda: _staged(attempt, stack), _STAGING_SECONDS)
        except RefusedError:  # others may have better credentials
            raise
        except UnavailableError as error:
            attempt.check()
            log.warning("job %s: its inputs are waited for: %s", attempt.claim.job_id, error)


def _started(attempt: Attempt, order: Order) -> Child:
    is_started = False
    try:
        child = Child(order)
        is_started = True
    finally:
        attempt.shop.numbers.started_trainer(well=is_started)
    return child


def _staged(attempt: Attempt, stack: ExitStack) -> Order:
    """The order for the trainer, its inputs in the cache until the stack unwinds."""
    shop, claim = attempt.shop, attempt.claim
    wanted = set(attempt.spec.artifacts().values())
    if claim.checkpoint is not None:
        wanted.add(claim.checkpoint)
    with shop.db.reading() as session:
        inputs = {artifact_id: _input(attempt, session, artifact_id) for artifact_id in wanted}
    paths = stack.enter_context(shop.cache.staged(inputs))
    lent = stack.enter_context(shop.cache.lending(attempt.folder.name))
    return Order(
        job_id=claim.job_id, kind=claim.kind, attempt=claim.attempt, owner=claim.owner, spec=claim.spec,
        scratch=attempt.folder,
        inputs={artifact_id: path for artifact_id, path in paths.items() if artifact_id != claim.checkpoint},
        digests={artifact_id: wanted.sha256 for artifact_id, wanted in inputs.items()},
        log=attempt.printed.path, checkpoint=paths[claim.checkpoint] if claim.checkpoint else None,
        device=attempt.device, threads=shop.num_plan_threads if claim.kind == "plan" else shop.num_threads,
        engine=shop.settings.engine, sandbox=shop.settings.sandbox, lent=lent,
        code_version=CODE_VERSION, orphan_seconds=shop.settings.lease_seconds / 2,
        lines=LogStyle(
            format=shop.settings.log_format, level=shop.settings.log_level, worker=shop.name,
            request_id=claim.request_id,
        ),
    )


def _input(attempt: Attempt, session: Session, artifact_id: str) -> Input:
    try:
        row = artifacts.find(session, attempt.claim.owner, artifact_id)
    except NotFoundError as error:
        raise StagingFailedError(f"{artifact_id} is gone.") from error
    return Input(row.sha256, row.size, partial(attempt.content, row))


def _hear_out(attempt: Attempt, child: Child, lender: Lender) -> Outcome:
    """Listen to the trainer until it ends, and end what is left of it."""
    inbox, num_kills = Inbox(attempt.shop.numbers.merged), num_memory_kills()
    reader = recorder.listen(child, inbox)
    try:
        last = _last_word(attempt, child, inbox, lender)
    finally:
        ending = child.end()
        inbox.end()
        child.hang_up()
        reader.join()
        child.close()
    log.info("job %s: the trainer %s", attempt.claim.job_id, ending)
    if last is None and "SIGKILL" in ending and num_memory_kills() > num_kills:
        return Lost(f"the trainer {ending} while the kernel was short of memory", OutOfMemoryError)
    return last or Lost(f"the trainer {ending} without a last word")


def _last_word(attempt: Attempt, child: Child, inbox: Inbox, lender: Lender) -> Outcome | None:
    """Record what the trainer says, answer what it asks, pass on what it is asked, and return how it ended.

    None: it did not say.
    """
    grace, limits = attempt.shop.settings.grace_seconds, attempt.limits
    asked: Request | None = None
    last: LastWord | None = None
    deadline = float("inf")
    limits.hear()
    while time.monotonic() < deadline:
        words, is_over = inbox.take(_LOOK_SECONDS)
        last = _take_in(attempt, child, lender, words)
        if words:  # heeded by now, for as long as the database took
            limits.hear()
        if isinstance(last, Finished | Planned | Failed):
            child.is_gone(grace)
            return last
        if last or is_over:
            break
        if limits.is_stalled:
            child.abort(_TRACEBACK_SECONDS)
            return Lost(f"the trainer said nothing for {limits.max_silence:,.10g} s", TrainerStalledError)
        wanted = attempt.lease.request() or limits.request()
        if wanted not in {None, asked} and asked in {None, Request.FINISH}:
            asked = wanted
            child.ask(wanted)
            deadline = float("inf") if wanted is Request.FINISH else time.monotonic() + grace
    if asked is Request.FINISH and not isinstance(last, Stopped):  # nor has it said that there is nothing to keep
        return None
    if asked and attempt.lease.request() is None:  # then nobody asked but the limit
        return Failed(failure=limits.exceeded().as_failure())
    # A trainer that stops although nobody asked is lost as much as one that dies.
    return Stopped(request=asked) if asked else None


def _take_in(attempt: Attempt, child: Child, lender: Lender, words: Sequence[Word]) -> LastWord | None:
    """Record events in their order, files stored before they are told, and answer questions.

    Returns the last word, if it came.
    """
    batch: list[TrainerEvent] = []
    for word in words:
        if isinstance(word, LAST_WORDS):
            attempt.record(batch)
            return word
        if isinstance(word, CheckpointSaved | SoftLabelsSaved | Wanted):
            attempt.record(batch)
            batch = []
            _act(attempt, child, lender, word)
        else:
            batch.append(word)
    attempt.record(batch)
    return None


def _act(attempt: Attempt, child: Child, lender: Lender, word: CheckpointSaved | SoftLabelsSaved | Wanted) -> None:
    if isinstance(word, CheckpointSaved):
        results.keep_checkpoint(attempt, word)
        attempt.pace.heed([word])
    elif isinstance(word, SoftLabelsSaved):
        lender.keep(word)
        attempt.pace.heed([word])
    else:
        child.answer(lender.answer(word))


def _conclude(attempt: Attempt, outcome: Outcome) -> None:
    """Write the end of the attempt into the row. Raises FencedError."""
    try:
        status = _end(attempt, outcome)
    except ProtocolError as error:
        outcome = Failed(failure=TrainerCrashedError(f"The results are unusable: {error}.").as_failure())
        status = _end(attempt, outcome)
    except (StorageFullError, UnavailableError):  # asked to stop, it does not wait for the store any longer
        request = attempt.lease.stop_request()
        if request is None:
            raise
        outcome = Stopped(request=request)
        status = _end(attempt, outcome)
    _count(attempt, outcome, status)
    attempt.shop.announcer.announce(attempt.claim.job_id)
    log.info("job %s: %s after attempt %d", attempt.claim.job_id, status, attempt.claim.attempt)


def _count(attempt: Attempt, outcome: Outcome, status: Status) -> None:
    numbers = attempt.shop.numbers
    if isinstance(outcome, Lost):
        numbers.attempted("lost")
        return
    attempt.pace.heed([outcome])
    if isinstance(outcome, Finished | Planned):
        attempt.pace.finish()
    drained = isinstance(outcome, Stopped) and status is Status.QUEUED
    numbers.attempted("drained" if drained else status, outcome.failure if isinstance(outcome, Failed) else None)


def _end(attempt: Attempt, outcome: Outcome) -> Status:
    db, claim, max_losses = attempt.shop.db, attempt.claim, attempt.shop.settings.max_losses
    if isinstance(outcome, Finished | Planned) and isinstance(outcome, Planned) != (claim.kind == "plan"):
        raise ProtocolError(f"a {claim.kind} does not end with {outcome.type}")
    if isinstance(outcome, Finished):
        return results.succeed(attempt, outcome)
    if isinstance(outcome, Planned):
        return attempt.lease.insist(lambda: life.plan(db, claim, outcome))
    if isinstance(outcome, Failed):
        return attempt.lease.insist(lambda: life.fail(db, claim, outcome.failure))
    if isinstance(outcome, Stopped):
        return attempt.lease.insist(lambda: life.stop(db, claim, outcome.request))
    return attempt.lease.insist(lambda: life.lose(db, claim, outcome.reason, max_losses, outcome.failure))


def _save_log(attempt: Attempt) -> None:
    """Keep all that the trainer printed, if the database can be reached in reasonable time."""
    try:
        write = partial(_write_log, attempt.shop, attempt.claim)
        attempt.lease.insist(lambda: attempt.printed.save(write), attempt.shop.settings.grace_seconds)
    except (FencedError, *OUTAGES) as error:
        log.warning("job %s: the end of its log was not saved: %r", attempt.claim.job_id, error)


def _write_log(shop: Workshop, claim: Claim, text: str, is_truncated: bool) -> None:
    life.save_log(shop.db, claim, text, truncated=is_truncated)
