"""A request that is sent twice happens once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from app.idempotency import service
from app.idempotency.models import IdempotencyKeyRow
from app.kit.clock import now
from app.kit.database import Database
from stillhouse.contract.failures import IdempotencyInFlightError, IdempotencyMismatchError


def begin(
    database: Database, *, owner: str = "ann", request: str = "POST /jobs", body: str = "0"
) -> service.Answer | None:
    return service.begin(database, owner=owner, key="k", request=request, body_sha256=body, hours=24)


def finish(database: Database) -> None:
    with database.writing() as session:
        service.finish(session, owner="ann", key="k", status_code=202, response={"id": "job_1"})


def age(database: Database, seconds: float) -> None:
    with database.writing() as session:
        session.execute(update(IdempotencyKeyRow).values(created_at=now(-seconds)))


def test_the_second_request_gets_the_first_answer(database: Database) -> None:
    assert begin(database) is None
    finish(database)
    assert begin(database) == service.Answer(202, {"id": "job_1"})


def test_a_request_in_flight_is_not_done_twice(database: Database) -> None:
    assert begin(database) is None
    with pytest.raises(IdempotencyInFlightError):
        begin(database)


def test_of_many_at_once_one_is_first(database: Database) -> None:
    def attempt(_: int) -> bool:
        try:
            return begin(database) is None
        except IdempotencyInFlightError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


@pytest.mark.parametrize("other", [{"request": "POST /artifacts"}, {"body": "1"}])
def test_a_key_belongs_to_one_request(database: Database, other: dict[str, str]) -> None:
    begin(database)
    with pytest.raises(IdempotencyMismatchError):
        begin(database, **other)
    finish(database)
    with pytest.raises(IdempotencyMismatchError):
        begin(database, **other)


def test_owners_do_not_share_keys(database: Database) -> None:
    begin(database)
    assert begin(database, owner="bob", body="1") is None


def test_a_failed_request_may_be_sent_again(database: Database) -> None:
    begin(database)
    service.abandon(database, owner="ann", key="k")
    assert begin(database) is None


def test_an_answer_is_not_abandoned(database: Database) -> None:
    begin(database)
    finish(database)
    service.abandon(database, owner="ann", key="k")
    assert begin(database) == service.Answer(202, {"id": "job_1"})


def test_a_request_that_died_may_be_sent_again(database: Database) -> None:
    begin(database)
    age(database, 61)
    assert begin(database) is None


def test_keys_are_forgotten_in_the_end(database: Database) -> None:
    begin(database)
    finish(database)
    age(database, 23 * 3600)
    assert begin(database) is not None
    age(database, 25 * 3600)
    assert begin(database) is None
