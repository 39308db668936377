"""Log lines of API, worker and trainer: one pipeline for all who write them, as JSON or as text for people.

Code logs by the standard library, with fields of its own in `extra`. What a line is about (request, job, attempt,
phase) is bound to the context with `about`, and stands in every line written meanwhile, those of libraries included.
"""

import logging
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import BaseModel, SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["json", "console"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

MAX_VALUE_LENGTH: Final = 16_384
_SHORTEST_SECRET = 6
_HIDDEN = "***"
# API keys, secrets of webhooks, credentials in headers, passwords in URLs: whoever prints them.
_SECRETS: Final = (
    (re.compile(r"\b(sk|whsec)_[A-Za-z0-9+/=_-]{8,}"), rf"\1_{_HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@?#]*):[^\s/]+@", re.IGNORECASE), rf"\1:{_HIDDEN}@"),
)
# Everything that could end a line, steer a terminal or turn the direction of what follows.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARGIN = "    | "


def configure(
    form: LogFormat, level: LogLevel, *, process: str, secrets: Collection[str] = (), **always: object
) -> None:
    """Have every line of this process go through the pipeline, to stderr.

    `secrets` are never written, wherever they turn up; `process` and `always` stand in every line. May be called
    again.
    """
    constant: EventDict = {"process": process, **always}
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _Cleaner(constant, secrets),
            *_renderers(form),
        ],
    ))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


@contextmanager
def about(**names: object) -> Iterator[None]:
    """Have every line say these while the block lasts: in this thread or task, and in those that copy its context."""
    with structlog.contextvars.bound_contextvars(**names):
        yield


def from_now_on(**names: object) -> None:
    """Have every line say these from now on, until the `about` around it ends that binds the same names."""
    structlog.contextvars.bind_contextvars(**names)


def request_id() -> str | None:
    """Id of the request that this thread or task works for; None where it works for none."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


def secrets_of(settings: BaseModel) -> frozenset[str]:
    """What settings hold that no line may show: secret fields, and the passwords in URLs."""
    values = [getattr(settings, name) for name in type(settings).model_fields]
    hidden = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    return frozenset(hidden | {password for value in values if isinstance(value, str) for password in _password(value)})


def _password(url: str) -> Iterable[str]:
    """The password in a URL, as it stands there and as it is meant."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return ()
    return (password, unquote(password)) if password else ()


def hider(secrets: Collection[str]) -> Callable[[str], str]:
    """A function that takes these secrets out of a text, and whatever looks like one."""
    # Longest first: one may be a part of another. A short one is a word that other text has too.
    known = sorted((text for text in secrets if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)
    patterns = [(re.compile("|".join(map(re.escape, known))), _HIDDEN), *_SECRETS] if known else _SECRETS

    def hide(text: str) -> str:
        for pattern, shown in patterns:
            text = pattern.sub(shown, text)
        return text

    return hide


def on_one_line(text: str) -> str:
    """The text without what could end a line or steer a terminal."""
    return _UNPRINTABLE.sub(_spelt, text)


class _Cleaner:
    """Adds what stands in every line; makes of each value something short that holds no secret."""

    def __init__(self, constant: EventDict, secrets: Collection[str]) -> None:
        self._constant = constant
        self._hide = hider(secrets)

    def __call__(self, _logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        line.pop("color_message", None)  # uvicorn's own, for terminals
        return {name: self._clean(value) for name, value in {**self._constant, **line}.items() if value is not None}

    def _clean(self, value: object) -> object:
        if isinstance(value, bool | int | float):
            return value
        text = self._hide(value if isinstance(value, str) else repr(value))
        if len(text) > MAX_VALUE_LENGTH:
            text = f"{text[:MAX_VALUE_LENGTH]}... [{len(text) - MAX_VALUE_LENGTH} characters left out]"
        return text


def _renderers(form: LogFormat) -> list[Processor]:
    if form == "json":
        # ASCII: whatever is no plain letter is escaped, line separators of Unicode and lone surrogates included.
        return [_ordered, structlog.processors.JSONRenderer(ensure_ascii=True)]
    return [_escaped, structlog.dev.ConsoleRenderer(
        colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )]


def _ordered(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    first = ("timestamp", "level", "event")
    return {**{name: line[name] for name in first if name in line}, **line}


def _escaped(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Text in which nothing that a user sent can pass for a line of its own."""
    return {
        name: _on_its_lines(value) if name == "exception" else on_one_line(value) if isinstance(value, str) else value
        for name, value in line.items()
    }


def _on_its_lines(traceback: object) -> str:
    return "\n".join(f"{_MARGIN}{on_one_line(line)}" for line in str(traceback).split("\n"))


def _spelt(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def _log_uncaught(*error: object) -> None:
    kind, value, _ = error
    if isinstance(kind, type) and issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("uncaught").critical("%s", value, exc_info=error)  # type: ignore[arg-type]


def _log_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is None or issubclass(caught.exc_type, SystemExit):
        return
    logging.getLogger("uncaught").critical(
        "a thread ended: %s", caught.exc_value, exc_info=(caught.exc_type, caught.exc_value, caught.exc_traceback)
    )
