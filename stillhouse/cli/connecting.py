"""Which service a command talks to, and the options that every command takes for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from stillhouse.cli.exits import UsageError
from stillhouse.client import Client, ServiceUnreachableError
from stillhouse.client.handle import JobHandle
from stillhouse.home import find_service

Url = Annotated[
    str | None,
    typer.Option(
        envvar="STILLHOUSE_URL", help="Address of the service. Left out: the one that `stillhouse up` runs here.",
        rich_help_panel="Service",
    ),
]
Key = Annotated[
    str | None, typer.Option(envvar="STILLHOUSE_API_KEY", help="API key.", rich_help_panel="Service")
]
Json = Annotated[bool, typer.Option("--json", help="Answer for programs: JSON on standard output.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or `last` for the newest one.")]


def connect(url: str | None, key: str | None) -> Client:
    """A client of the service that is meant."""
    address = find_service(url, key)
    if address is None:
        raise ServiceUnreachableError("no service is running in this folder, and none was named with --url")
    return Client(address.url, address.key)


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator[Client]:
    """A client for the length of a command."""
    with connect(url, key) as client:
        yield client


def find_job(client: Client, job: str) -> JobHandle:
    """The job of this id, or the newest for `last`."""
    if job != "last":
        return client.job(job)
    newest = next(client.jobs(), None)
    if newest is None:
        raise UsageError("there is no job yet, so there is no last one")
    return client.job(newest.id)
