"""API keys open the door, until they are revoked."""

from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from app.keys import service
from app.keys.models import ApiKeyRow
from app.kit.clock import now
from app.kit.database import Database
from stillhouse.contract.failures import NotFoundError, UnauthenticatedError


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
    assert (found.id, found.owner, found.name, found.is_admin) == (row.id, "ann", "laptop", False)


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
    assert (row.owner, row.is_admin) == ("default", True)
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
