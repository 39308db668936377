"""From a status to an end: written down with it, sent at least once, tried again by the database's clock."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, update

from app.jobs import life, log
from app.kit.clock import now
from app.kit.database import Database
from app.webhooks import delivery, queries, service
from app.webhooks.delivery import BACK_OFF, DAY, JITTER, Claimed
from app.webhooks.models import AttemptRow, DeliveryRow, WebhookRow
from app.webhooks.sending import Answer
from stillhouse.contract.failures import DivergedError
from stillhouse.contract.status import Request, Status
from stillhouse.contract.webhooks import WebhookEvent, WebhookMessage
from tests.fixtures.jobs import Desk
from tests.fixtures.waiting import wait_until, waits_for_lock

GOOD, BAD, GONE = Answer("delivered", 200), Answer("refused", 500), Answer("refused", 410)


def webhook(db: Database, *events: WebhookEvent, owner: str = "ann") -> WebhookRow:
    with db.writing() as session:
        return service.create(session, owner=owner, url="https://a.example/", events=events, name=None)


def a_test(db: Database, webhook_id: str) -> str:
    with db.writing() as session:
        return service.test(session, "ann", webhook_id).id


def written(db: Database, webhook_id: str) -> list[DeliveryRow]:
    with db.reading() as session:
        return list(session.scalars(queries.deliveries(webhook_id, status=None, cursor=None)))


def row(db: Database, delivery_id: str) -> DeliveryRow:
    with db.reading() as session:
        return session.get_one(DeliveryRow, delivery_id)


def claimed(db: Database) -> Claimed:
    found = delivery.claim(db)
    assert found is not None
    return found


def let(db: Database, delivery_id: str, **columns: object) -> None:
    with db.writing() as session:
        session.execute(update(DeliveryRow).where(DeliveryRow.id == delivery_id).values(**columns))


def announced(desk: Desk) -> WebhookRow:
    """A webhook, with one delivery of a started job."""
    hook = webhook(desk.db)
    desk.submit()
    desk.claim()
    return hook


def test_each_status_that_counts_is_written_down_with_it(desk: Desk) -> None:
    hook = webhook(desk.db)
    job_id = desk.submit(name="mine", labels={"team": "a"})
    life.fail(desk.db, desk.claim(), DivergedError().as_failure())
    messages = [WebhookMessage.model_validate_json(found.body) for found in written(desk.db, hook.id)]
    assert sorted(message.type for message in messages) == ["job.failed", "job.started"]
    [news] = [message.data for message in messages if message.type == "job.failed"]
    assert not isinstance(news, dict)
    assert (news.id, news.name, news.labels, news.status) == (job_id, "mine", {"team": "a"}, "failed")
    assert news.error is not None
    assert (news.error.code, news.links["job"]) == ("diverged", f"/jobs/{job_id}")


def test_a_job_that_is_begun_again_has_not_started_anew(desk: Desk) -> None:
    hook = webhook(desk.db)
    desk.submit()
    life.stop(desk.db, desk.claim(), Request.DRAIN)
    desk.claim()
    assert [found.type for found in written(desk.db, hook.id)] == ["job.started"]


def test_a_paused_job_is_told(desk: Desk) -> None:
    hook = webhook(desk.db, WebhookEvent.JOB_PAUSED)
    job_id = desk.submit()
    claim = desk.claim()
    desk.set(job_id, status=Status.PAUSING)
    life.stop(desk.db, claim, Request.PAUSE)
    assert [found.type for found in written(desk.db, hook.id)] == ["job.paused"]


def test_only_wanted_events_of_own_jobs_are_written_down(desk: Desk) -> None:
    hooks = [webhook(desk.db, WebhookEvent.JOB_CANCELLED), webhook(desk.db, owner="bob"), webhook(desk.db)]
    with desk.db.writing() as session:
        service.change(session, "ann", hooks[2].id, {"enabled": False})
    desk.submit(queue="plans")
    desk.claim(queue="plans")
    job_id = desk.submit()
    desk.claim()
    desk.cancel(job_id)
    life.reap(desk.db, 5)
    desk.expire(job_id)
    life.reap(desk.db, 5)
    assert [[found.type for found in written(desk.db, hook.id)] for hook in hooks] == [["job.cancelled"], [], []]


def test_what_was_not_committed_is_not_told(desk: Desk) -> None:
    hook = webhook(desk.db)
    job = desk.row(desk.submit())
    with desk.db.writing() as session:
        log.change_status(session, job, Status.CANCELLED, "cancelled by the user")
        session.rollback()
    assert written(desk.db, hook.id) == []


def test_one_event_has_one_name_for_all_receivers(desk: Desk) -> None:
    hooks = [webhook(desk.db) for _ in range(2)]
    desk.submit()
    desk.claim()
    assert len({found.message_id for hook in hooks for found in written(desk.db, hook.id)}) == 1


def test_what_is_claimed_is_claimed_once(desk: Desk) -> None:
    hook = announced(desk)
    first = claimed(desk.db)
    assert first.secrets == (hook.secret,)
    assert delivery.claim(desk.db) is None
    assert delivery.record(desk.db, first, GOOD, 0.1)
    assert [found.status for found in written(desk.db, hook.id)] == ["delivered"]
    assert delivery.claim(desk.db) is None


def test_what_a_lost_process_had_claimed_is_sent_by_another_when_its_lease_ends(desk: Desk) -> None:
    announced(desk)
    lost = claimed(desk.db)
    let(desk.db, lost.delivery_id, lease_until=now(-1))
    again = claimed(desk.db)
    assert (again.delivery_id, again.message_id, again.attempt) == (lost.delivery_id, lost.message_id, 2)
    assert not delivery.record(desk.db, lost, BAD, 0.1)
    assert delivery.record(desk.db, again, GOOD, 0.1)
    with desk.db.reading() as session:
        outcomes = [attempt.outcome for attempt in session.scalars(queries.attempts([lost.delivery_id]))]
    assert outcomes == ["lost", "delivered"]


def test_a_busy_receiver_is_passed_over(desk: Desk) -> None:
    hook = announced(desk)
    assert delivery.claim(desk.db, busy=[hook.id]) is None
    assert delivery.claim(desk.db) is not None


def test_failures_are_tried_again_by_the_schedule_and_then_no_more(desk: Desk) -> None:
    hook = announced(desk)
    [found] = written(desk.db, hook.id)
    for wait in BACK_OFF:
        begun = datetime.now(UTC)
        assert delivery.record(desk.db, claimed(desk.db), BAD, 0.1)
        found = row(desk.db, found.id)
        assert found.status == "pending"
        assert wait - 1 <= (found.next_attempt_at - begun).total_seconds() <= wait * (1 + JITTER) + 60
        assert delivery.claim(desk.db) is None
        let(desk.db, found.id, next_attempt_at=now(-1))
    assert delivery.record(desk.db, claimed(desk.db), BAD, 0.1)
    assert row(desk.db, found.id).status == "failed"
    assert delivery.claim(desk.db) is None


def test_a_receiver_that_asks_for_a_pause_gets_it(desk: Desk) -> None:
    announced(desk)
    first = claimed(desk.db)
    begun = datetime.now(UTC)
    delivery.record(desk.db, first, Answer("refused", 503, retry_after=600), 0.1)
    assert (row(desk.db, first.delivery_id).next_attempt_at - begun).total_seconds() >= 599


def test_a_test_is_tried_once_and_blames_nobody(desk: Desk) -> None:
    hook = webhook(desk.db, WebhookEvent.JOB_FAILED)
    delivery_id = a_test(desk.db, hook.id)
    delivery.record(desk.db, claimed(desk.db), BAD, 0.1)
    assert row(desk.db, delivery_id).status == "failed"
    with desk.db.reading() as session:
        assert service.find(session, "ann", hook.id).failing_since is None


def test_a_receiver_that_is_gone_is_sent_nothing_more(desk: Desk) -> None:
    hook = announced(desk)
    waiting = a_test(desk.db, hook.id)
    delivery.record(desk.db, claimed(desk.db), GONE, 0.1)
    with desk.db.reading() as session:
        told = service.find(session, "ann", hook.id)
    assert told.disabled_at is not None
    assert "410" in (told.disabled_reason or "")
    assert row(desk.db, waiting).status == "failed"
    assert delivery.claim(desk.db) is None


@pytest.mark.parametrize(("days", "is_disabled"), [(4.9, False), (5.1, True)])
def test_five_days_of_failures_disable_a_webhook(desk: Desk, days: float, is_disabled: bool) -> None:
    hook = announced(desk)
    with desk.db.writing() as session:
        session.execute(update(WebhookRow).values(failing_since=now(-days * DAY)))
    delivery.record(desk.db, claimed(desk.db), BAD, 0.1)
    with desk.db.reading() as session:
        assert (service.find(session, "ann", hook.id).disabled_at is not None) == is_disabled


def test_a_success_ends_the_failing(desk: Desk) -> None:
    hook = announced(desk)
    first = claimed(desk.db)
    delivery.record(desk.db, first, BAD, 0.1)
    with desk.db.reading() as session:
        assert service.find(session, "ann", hook.id).failing_since is not None
    let(desk.db, first.delivery_id, next_attempt_at=now(-1))
    delivery.record(desk.db, claimed(desk.db), GOOD, 0.1)
    with desk.db.reading() as session:
        assert service.find(session, "ann", hook.id).failing_since is None


def test_a_webhook_that_is_disabled_meanwhile_is_sent_nothing(desk: Desk) -> None:
    hook = announced(desk)
    with desk.db.writing() as session:  # as where the event was written down while it was being disabled
        session.execute(queries.disable(hook.id, "gone"))
    assert delivery.claim(desk.db) is None
    assert [found.status for found in written(desk.db, hook.id)] == ["failed"]


def test_old_deliveries_and_secrets_are_forgotten_and_waiting_ones_kept(desk: Desk) -> None:
    hook = webhook(desk.db)
    old, waiting, new = (a_test(desk.db, hook.id) for _ in range(3))
    delivery.record(desk.db, claimed(desk.db), BAD, 0.1)
    let(desk.db, old, created_at=now(-31 * DAY), status="failed")
    let(desk.db, waiting, created_at=now(-31 * DAY), status="pending")
    with desk.db.writing() as session:
        session.execute(update(WebhookRow).values(old_secret="whsec_x", old_secret_until=now(-1)))  # noqa: S106 - a test's
    assert delivery.forget(desk.db, older_than_days=30) == 1
    assert {found.id for found in written(desk.db, hook.id)} == {waiting, new}
    with desk.db.reading() as session:
        assert service.find(session, "ann", hook.id).old_secret is None
        assert session.scalars(select(func.count()).select_from(AttemptRow)).one() <= 1


def test_deleting_a_webhook_deletes_what_was_sent_and_the_sender_is_told(desk: Desk) -> None:
    hook = announced(desk)
    being_sent = claimed(desk.db)
    with desk.db.writing() as session:
        service.remove(session, "ann", hook.id)
    assert not delivery.record(desk.db, being_sent, GOOD, 0.1)
    assert written(desk.db, hook.id) == []


def test_two_senders_never_claim_the_same(postgres_desk: Desk) -> None:
    """On PostgreSQL, where writers do not queue up: what one has locked, another passes over."""
    announced(postgres_desk)
    with postgres_desk.db.writing() as session:
        assert session.scalars(queries.due_for_change([])).one_or_none() is not None
        assert delivery.claim(postgres_desk.db) is None
    assert delivery.claim(postgres_desk.db) is not None


def test_a_job_ends_also_while_its_webhook_is_being_deleted(postgres_desk: Desk) -> None:
    hook = webhook(postgres_desk.db)
    job_id = postgres_desk.submit()
    with ThreadPoolExecutor(1) as pool:
        with postgres_desk.db.writing() as session:
            service.remove(session, "ann", hook.id)
            session.flush()
            ending = pool.submit(postgres_desk.cancel, job_id)
            wait_until(lambda: waits_for_lock(postgres_desk.db), 60)
        assert ending.result(60) is Status.CANCELLED
