"""A database without room says so in words of its own."""

import sqlite3

import psycopg.errors
import pytest
from sqlalchemy.exc import DBAPIError

from app.kit.database import _tells_full


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError()
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(("cause", "is_full"), [
    (psycopg.errors.DiskFull(), True), (psycopg.errors.LockNotAvailable(), False),
    (sqlite_error("SQLITE_FULL"), True), (sqlite_error("SQLITE_BUSY"), False), (sqlite3.OperationalError(), False),
])
def test_what_tells_full(cause: Exception, is_full: bool) -> None:
    assert _tells_full(DBAPIError("INSERT", None, cause)) is is_full
