"""How a command ends: one exit status per kind of ending, and errors in words that say what to do."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from http import HTTPStatus

import typer
from pydantic import ValidationError
from rich.markup import escape
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from stillhouse.cli.output import tell
from stillhouse.client.errors import ServiceUnreachableError, StillhouseApiError, StillhouseClientError
from stillhouse.contract.failures import Failure, FieldError
from stillhouse.local.errors import LocalServiceError


class Exit(IntEnum):
    """Exit statuses, as `stillhouse --help` documents them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    CANCELLED = 5
    INTERRUPTED = 130


EPILOG = (
    "Exit status: 0 done; 1 the job failed, or something unexpected; 2 wrong usage; 3 the service refused, with a "
    "code; 4 no service answers; 5 the job was cancelled; 130 interrupted."
)

_ADVICE = {
    "unauthenticated": "Give the key with --key or STILLHOUSE_API_KEY. A local service keeps its key in "
    ".stillhouse/token, which is found from the folder in which `stillhouse up` was called.",
    "not_found": "`stillhouse list` shows the jobs that this key can see.",
    "not_ready": "`stillhouse watch JOB` waits for it.",
    "storage_full": "See what is stored with GET /artifacts, and delete what is no longer needed.",
}


class UsageError(Exception):
    """The command line cannot mean anything; the text says what to write instead."""


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what can go wrong into a message and an exit status."""
    _tell_retries()
    try:
        yield
    except StillhouseApiError as error:
        tell_api_error(error)
        raise typer.Exit(Exit.REFUSED if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else Exit.FAILED) from error
    except ServiceUnreachableError as error:
        tell_error(str(error), "Is the service running? `stillhouse up` starts one on this machine.")
        raise typer.Exit(Exit.UNREACHABLE) from error
    except UsageError as error:
        tell_error(str(error))
        raise typer.Exit(Exit.USAGE) from error
    except (StillhouseClientError, LocalServiceError) as error:
        tell_error(str(error))
        raise typer.Exit(Exit.FAILED) from error
    except KeyboardInterrupt as error:
        tell("interrupted")
        raise typer.Exit(Exit.INTERRUPTED) from error
    except OSError as error:
        _tell_os_error(error)
        raise typer.Exit(Exit.FAILED) from error


def tell_error(message: str, advice: str | None = None) -> None:
    """Print what is wrong, and what to do."""
    tell(f"[bold red]error:[/] {escape(message)}")
    if advice:
        tell(escape(advice))


def tell_api_error(error: StillhouseApiError) -> None:
    """Print what the service refused, which fields are wrong, and what to do."""
    headline = error.problem.title if error.errors else error.message
    tell_error(f"{headline.rstrip('.')}. [{error.code}]")
    for wrong in error.errors:
        tell(_field(wrong))
    if error.param and not error.errors:
        tell(f"  at {escape(field_name(error.param))}")
    if error.problem.allowed_actions is not None:
        allowed = ", ".join(error.allowed_actions) or "nothing; its status is final"
        tell(f"What this job's status allows: {allowed}.")
    if error.code in _ADVICE:
        tell(escape(_ADVICE[error.code]))
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.problem.request_id:
        tell(f"The service's log has the details under request {escape(error.problem.request_id)}.")


def tell_failure(failure: Failure) -> None:
    """Print why a job failed."""
    at = f" at step {failure.step}" if failure.step is not None else ""
    tell_error(f"the job failed{at}: {failure.message} [{failure.code}]")
    if failure.param:
        tell(f"  at {escape(field_name(failure.param))}")
    if failure.retryable:
        tell("This was not the spec's fault: the same job may succeed when it is submitted again.")


def field_name(pointer: str) -> str:
    """A JSON pointer as people write it: `/data/train/labels` -> `data.train.labels`."""
    return pointer.lstrip("/").replace("/", ".") or "the whole spec"


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in one line."""
    wrong = error.errors()[0]
    place = ".".join(map(str, wrong["loc"]))
    return f"{place}: {wrong['msg']}" if place else wrong["msg"]


def _field(wrong: FieldError) -> str:
    suggestion = f" Did you mean `{wrong.suggestion}`?" if wrong.suggestion else ""
    hint = "" if wrong.suggestion and wrong.suggestion in wrong.detail else suggestion
    return f"  [bold]{escape(field_name(wrong.pointer))}[/]: {escape(wrong.detail + hint)}"


def _tell_os_error(error: OSError) -> None:
    if error.errno == errno.EPIPE:
        raise error  # the reader of our output has gone; typer ends quietly
    place = f" {error.filename}" if error.filename else ""
    tell_error(f"{error.strerror or error}{':' if place else ''}{place}")


class _Warnings(logging.Handler):
    """Tells people what the client warns of."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(f"[yellow]{escape(record.getMessage())}[/]")


def _tell_retries() -> None:
    """Tell, once, that a request is tried again."""
    told = iter(["no answer; trying again"])

    def tell_once(details: RetryDetails) -> None:
        del details
        for text in told:
            tell(f"[yellow]{text}[/]")

    # By default stamina logs retries, to another place where structlog happens to be installed.
    set_on_retry_hooks([tell_once])
    logger = logging.getLogger("stillhouse.client")
    logger.handlers = [_Warnings(logging.WARNING)]
    logger.propagate = False
