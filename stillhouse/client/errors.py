"""What can go wrong between a client and the service."""

from collections.abc import Sequence
from http import HTTPStatus

import httpx
from pydantic import ValidationError

from stillhouse.contract.failures import Blame, Failure, FieldError
from stillhouse.contract.resources import Problem

_LONGEST_QUOTE = 200


class StillhouseClientError(Exception):
    """Base of what the client raises; its text is meant for people."""


class ServiceUnreachableError(StillhouseClientError):
    """No service answers at the address, or it stopped answering."""


class TransferError(StillhouseClientError):
    """A file did not arrive as it was sent; nothing of it was kept."""


class UnexpectedAnswerError(StillhouseClientError):
    """Something answered that does not speak this API."""


class StillhouseApiError(StillhouseClientError):
    """The service refused a request and said why (problem+json)."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        self.problem = problem
        # Seconds after which the service asks for the next attempt, where it does.
        self.retry_after = retry_after
        super().__init__(problem.detail)

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self.problem.status

    @property
    def is_one_too_many(self) -> bool:
        """Whether the request was refused for their number, and changed nothing."""
        return self.status == HTTPStatus.TOO_MANY_REQUESTS

    @property
    def code(self) -> str:
        """Stable name of the failure; docs/errors.md explains each."""
        return self.problem.code

    @property
    def message(self) -> str:
        """What happened and what to do instead."""
        return self.problem.detail

    @property
    def param(self) -> str | None:
        """JSON pointer of the field that caused it."""
        return self.problem.param

    @property
    def errors(self) -> Sequence[FieldError]:
        """Each field that is wrong."""
        return self.problem.errors

    @property
    def allowed_actions(self) -> Sequence[str]:
        """What the job's status allows instead."""
        return [str(action) for action in self.problem.allowed_actions or []]

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        return self.problem.retryable


def error_of_failure(failure: Failure, instance: str) -> StillhouseApiError:
    """The error of something that has failed by now; `instance` is the path where it is kept."""
    return StillhouseApiError(Problem(
        type=f"urn:stillhouse:error:{failure.code}", title=failure.message,
        status=HTTPStatus.UNPROCESSABLE_ENTITY if failure.blame is Blame.USER else HTTPStatus.INTERNAL_SERVER_ERROR,
        detail=failure.message, instance=instance, code=failure.code, blame=failure.blame,
        retryable=failure.retryable, param=failure.param,
    ))


def error_of(response: httpx.Response) -> StillhouseApiError:
    """The error that an answer of status 400 or above tells; its body must have been read."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _foreign_problem(response)
    return StillhouseApiError(problem, _retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; None for the other form, a date, which is no better than the clocks of both sides."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else None


def _foreign_problem(response: httpx.Response) -> Problem:
    """A problem for an answer that is not ours: a proxy's page, or another program on the port."""
    quote = " ".join(response.text.split())[:_LONGEST_QUOTE]
    return Problem(
        type="about:blank", title=response.reason_phrase or "Error", status=response.status_code,
        detail=f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
        + (f": {quote}" if quote else ""),
        code=f"http_{response.status_code}", blame=Blame.INFRASTRUCTURE,
        retryable=response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR,
    )
