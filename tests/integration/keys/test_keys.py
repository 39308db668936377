"""API keys open the door, until they are revoked."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from app.keys import service
from app.keys.models import ApiKeyRow
from app.kit.clock import now
from app.kit.database import Database
from stillhouse.contract.failures import KeyEndedError, NotFoundError, StorageFullError, UnauthenticatedError


def create(database: Database, owner: str = "ann", name: str = "laptop") -> tuple[ApiKeyRow, str]:
    with database.writing() as session:
        return service.create(session, owner=owner, name=name)


def last_used(database: Database) -> object:
    with database.reading() as session:
        return session.scalars(select(ApiKeyRow.last_used_at)).one()


def test_a_key_opens_the_door(database: Database) -> None:
    row, secret = create(database)
    assert secret.startswith("sk_")
    assert len(secret) == 43
    assert row.prefix == secret[:8]
    found = service.authenticate(database, secret)
    assert (found.id, found.owner, found.scopes) == (row.id, "ann", "read submit")


def test_the_secret_is_not_stored(database: Database) -> None:
    _, secret = create(database)
    with database.reading() as session:
        stored = session.execute(text("SELECT * FROM api_keys")).one()
    assert all(secret not in str(value) for value in stored)


@pytest.mark.parametrize("secret", ["", "sk_", "sk_" + "x" * 40, "\0", "\ud800"])
def test_another_secret_does_not(database: Database, secret: str) -> None:
    create(database)
    with pytest.raises(UnauthenticatedError):
        service.authenticate(database, secret)


def test_a_revoked_key_is_dead_and_stays_listed(database: Database) -> None:
    row, secret = create(database)
    for _ in range(2):
        with database.writing() as session:
            service.revoke(session, "ann", row.id)
    with pytest.raises(UnauthenticatedError):
        service.authenticate(database, secret)
    with database.reading() as session:
        [listed] = service.page(session, "ann").rows
    assert listed.revoked_at is not None
    assert listed.revoked_at - listed.created_at < timedelta(seconds=30)


def test_nobody_revokes_the_key_of_another(database: Database) -> None:
    row, secret = create(database)
    with pytest.raises(NotFoundError), database.writing() as session:
        service.revoke(session, "bob", row.id)
    assert service.authenticate(database, secret).id == row.id


def test_the_last_use_is_noted_about_once_a_minute(database: Database) -> None:
    _, secret = create(database)
    assert last_used(database) is None
    service.authenticate(database, secret)
    first = last_used(database)
    assert first is not None
    service.authenticate(database, secret)
    assert last_used(database) == first
    with database.writing() as session:
        session.execute(update(ApiKeyRow).values(last_used_at=now(-61)))
    service.authenticate(database, secret)
    assert last_used(database) != first


def test_the_bootstrap_key_is_made_once(database: Database) -> None:
    for _ in range(2):
        with database.writing() as session:
            service.ensure_bootstrap(session, "a secret of the operator")
    row = service.authenticate(database, "a secret of the operator")
    assert (row.owner, row.scopes) == ("default", "read submit admin")
    with database.reading() as session:
        assert len(service.page(session, "default").rows) == 1


def test_a_revoked_bootstrap_key_stays_revoked(database: Database) -> None:
    with database.writing() as session:
        service.ensure_bootstrap(session, "secret")
    row = service.authenticate(database, "secret")
    with database.writing() as session:
        service.revoke(session, "default", row.id)
        service.ensure_bootstrap(session, "secret")
    with pytest.raises(UnauthenticatedError):
        service.authenticate(database, "secret")


def test_keys_are_listed_by_owner_in_pages(database: Database) -> None:
    made = {create(database, name=str(number))[0].id for number in range(3)}
    create(database, owner="bob")
    with database.reading() as session:
        first = service.page(session, "ann", limit=2)
        second = service.page(session, "ann", limit=2, cursor=first.next_cursor)
    assert {row.id for row in [*first.rows, *second.rows]} == made
    assert second.next_cursor is None


def rotate(database: Database, key_id: str, overlap_seconds: float = 60.0) -> str:
    with database.writing() as session:
        return service.rotate(session, None, key_id, overlap_seconds=overlap_seconds)[1]


def opens(database: Database, secret: str) -> bool:
    try:
        service.authenticate(database, secret)
    except UnauthenticatedError:
        return False
    return True


def test_a_key_ends_when_it_expires(database: Database) -> None:
    row, secret = create(database)
    with database.writing() as session:
        session.execute(update(ApiKeyRow).values(expires_at=now(60)))
    assert service.authenticate(database, secret).id == row.id
    with database.writing() as session:
        session.execute(update(ApiKeyRow).values(expires_at=now(-1)))
    with pytest.raises(UnauthenticatedError, match="expired"):
        service.authenticate(database, secret)


def test_the_secret_before_a_rotation_is_valid_for_the_overlap(database: Database) -> None:
    row, first = create(database)
    second = rotate(database, row.id)
    assert service.authenticate(database, second).id == row.id
    with database.reading() as session:
        assert service.held(session, row.owner, row.id).prefix == second[:8]
    assert service.authenticate(database, first).id == row.id
    third = rotate(database, row.id, overlap_seconds=0)
    assert [opens(database, secret) for secret in (first, second, third)] == [False, False, True]


def test_only_one_secret_before_the_present_one_is_valid(database: Database) -> None:
    row, first = create(database)
    second, third = rotate(database, row.id), rotate(database, row.id)
    assert [opens(database, secret) for secret in (first, second, third)] == [False, True, True]


def test_a_revoked_key_has_no_valid_secret_at_all(database: Database) -> None:
    row, first = create(database)
    second = rotate(database, row.id)
    with database.writing() as session:
        service.revoke(session, "ann", row.id)
    assert [opens(database, secret) for secret in (first, second)] == [False, False]
    with pytest.raises(KeyEndedError):
        rotate(database, row.id)


def test_a_key_that_has_expired_is_not_rotated(database: Database) -> None:
    row, _ = create(database)
    with database.writing() as session:
        session.execute(update(ApiKeyRow).values(expires_at=now(-1)))
    with pytest.raises(KeyEndedError):
        rotate(database, row.id)


def test_rotations_at_once_follow_each_other(database: Database) -> None:
    row, first = create(database)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: rotate(database, row.id), range(8)))
    assert not opens(database, first)
    # The present one, and the one before it.
    assert sum(opens(database, secret) for secret in made) == 2


def test_a_bootstrap_secret_that_was_replaced_does_not_come_back(database: Database) -> None:
    with database.writing() as session:
        service.ensure_bootstrap(session, "secret")
    rotate(database, service.authenticate(database, "secret").id, overlap_seconds=0)
    with database.writing() as session:
        service.ensure_bootstrap(session, "secret")
    assert not opens(database, "secret")


def test_a_use_that_cannot_be_noted_is_no_failure(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, secret = create(sqlite_database)

    def full(*_args: object) -> None:
        raise StorageFullError

    monkeypatch.setattr(sqlite_database, "writing", full)
    assert service.authenticate(sqlite_database, secret).id == row.id
