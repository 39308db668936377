"""Log lines hide secrets, and nothing that a user wrote can pass for a line or a field of ours."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any, Literal

import pytest
from pydantic import BaseModel, SecretStr

from app.kit import logs
from app.kit.logs import MAX_VALUE_LENGTH, LogFormat
from app.settings import Settings

FORMATS: tuple[LogFormat, ...] = ("json", "console")
KEY = "sk_" + "Q7w" * 13
OURS = {"timestamp", "level", "event", "process", "logger"}
# Whatever ends a line for some reader, steers a terminal, or turns the direction of what follows.
CONTROLS = (
    "\n", "\r", "\r\n", "\v", "\f", "\0", "\b", "\x1c", "\x1d", "\x1e", "\x7f", "\x85", "\u2028", "\u2029",
    "\x1b[2K\x1b[1A", "\x9b2K", "\u202e", "\u2066", "\ud800",
)
FORGED = '{"level": "critical", "event": "forged"}'

log = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `configure` changes in this process, put back."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    logging.captureWarnings(False)


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> "Written":
    """What this test wrote to stderr."""
    return Written(capsys)


class Written:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self) -> str:
        return self._capsys.readouterr().err

    def line(self) -> dict[str, Any]:
        (line,) = self.text().splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


def configure(form: LogFormat = "json", *, secrets: tuple[str, ...] = ()) -> None:
    logs.configure(form, "INFO", process="tests", secrets=secrets)


Place = Literal["message", "argument", "field", "nested field", "context", "exception", "cause"]
PLACES: tuple[Place, ...] = ("message", "argument", "field", "nested field", "context", "exception", "cause")


def write(place: Place, text: str) -> None:
    """Log a text from somewhere."""
    match place:
        case "message":
            log.info(text)
        case "argument":
            log.info("it was %s", text)
        case "field":
            log.info("it was", extra={"found": text})
        case "nested field":
            log.info("it was", extra={"found": {"list": [text]}})
        case "context":
            with logs.about(found=text):
                log.info("it was")
        case "exception" | "cause":
            try:
                raise_it(text, is_cause=place == "cause")
            except ValueError:
                log.exception("it was")


def raise_it(text: str, *, is_cause: bool) -> None:
    error = ValueError(text)
    if is_cause:
        raise ValueError("another") from error
    raise error


# Secrets

@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("text", "secret", "shown"), [
    (f"key {KEY}.", KEY, "key sk_***."),
    ("webhook whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw+/= signs", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_*** signs"),
    ("Authorization: Bearer eyJhbGciOi.JIUzI1-NiJ9", "eyJhbGciOi", "Bearer ***"),
    ("authorization: basic bWU6aHVudGVyMg==", "bWU6aHVudGVyMg", "basic ***"),
    (
        "at postgresql+psycopg://me:hunter2@db:5432/x",  # pragma: allowlist secret
        "hunter2", "postgresql+psycopg://me:***@db:5432/x",
    ),
    ("at redis://:hunter2@cache:6379/0", "hunter2", "redis://:***@cache:6379/0"),
    ("at redis://:hunt@er2@cache:6379/0", "er2", "redis://:***@cache:6379/0"),
])
def test_credentials_are_hidden_wherever_they_stand(
    written: Written, form: LogFormat, place: Place, text: str, secret: str, shown: str
) -> None:
    configure(form)
    write(place, text)
    found = written.text()
    assert secret not in found
    assert shown in found


@pytest.mark.parametrize("text", [
    "risk_assessment_of_tasks", "https://host:8765/a@b", "basic idea", "to Bearer of news",
])
def test_what_only_looks_like_a_credential_stays(written: Written, text: str) -> None:
    configure()
    log.info(text)
    assert written.line()["event"] == text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", PLACES)
def test_known_secrets_are_hidden_wherever_they_stand(written: Written, form: LogFormat, place: Place) -> None:
    configure(form, secrets=("plain words", "plain words, and more", "no.pattern*"))
    write(place, "first plain words, and more; then nothing no.pattern* matches")
    found = written.text()
    assert "first ***; then nothing *** matches" in found


def test_a_short_secret_is_a_word_like_others(written: Written) -> None:
    configure(secrets=("", "job"))
    log.info("a job was done")
    assert written.line()["event"] == "a job was done"


class _Shop(BaseModel):
    name: str = "shop"
    url: str = "postgresql://me:p%40ss%2Fword@db/x"  # pragma: allowlist secret
    open_url: str = "redis://cache:6379/0"
    broken_url: str = "http://[::1"
    token: SecretStr = SecretStr("very secret")
    no_token: SecretStr | None = None
    port: int = 80


def test_secrets_of_settings_are_secret_fields_and_passwords_of_urls() -> None:
    assert logs.secrets_of(_Shop()) == {"very secret", "p%40ss%2Fword", "p@ss/word"}


def test_secrets_of_this_service() -> None:
    config = Settings(
        bootstrap_key=SecretStr(KEY), database_url="postgresql+psycopg://me:of-the-database@db/x",
        broker_url="rediss://:of-the-broker@cache:6379/0",
    )
    assert logs.secrets_of(config) == {KEY, "of-the-database", "of-the-broker"}


# Forgery

@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("control", CONTROLS)
def test_json_is_one_line_of_ascii_with_our_fields_only(written: Written, place: Place, control: str) -> None:
    configure()
    write(place, f"a{control}{FORGED}{control}")
    text = written.text()
    assert text.isascii()
    assert not set(text[:-1]) & set(map(chr, range(32)))
    line = json.loads(text)
    more = {"exception": {"exception"}, "cause": {"exception"}, "message": set(), "argument": set()}
    assert set(line) == OURS | more.get(place, {"found"})
    assert (line["process"], line["logger"]) == ("tests", "tests.logs")
    assert line["level"] == ("error" if place in {"exception", "cause"} else "info")


@pytest.mark.parametrize("control", CONTROLS)
def test_json_keeps_what_was_written(written: Written, control: str) -> None:
    configure()
    log.info("it was", extra={"found": f"é{control}{FORGED}"})
    assert written.line()["found"] == f"é{control}{FORGED}"


@pytest.mark.parametrize("place", ["message", "argument", "field", "nested field", "context"])
@pytest.mark.parametrize("control", CONTROLS)
def test_text_for_people_is_one_line_without_controls(written: Written, place: Place, control: str) -> None:
    configure("console")
    write(place, f"a{control}{FORGED}")
    text = written.text()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


@pytest.mark.parametrize("place", ["exception", "cause"])
@pytest.mark.parametrize("control", CONTROLS)
def test_a_traceback_for_people_keeps_its_lines_behind_a_margin(written: Written, place: Place, control: str) -> None:
    configure("console")
    write(place, f"a{control}{FORGED}")
    first, *others = written.text().removesuffix("\n").split("\n")
    assert "it was" in first
    assert any("raise_it" in line for line in others)
    assert all(line.startswith("    | ") for line in others)
    assert all(line.isprintable() for line in (first, *others))


def test_a_value_in_text_for_people_cannot_pass_for_a_field(written: Written) -> None:
    configure("console")
    log.info("it was", extra={"found": "x level=critical job_id=job_another"})
    assert "found='x level=critical job_id=job_another'" in written.text()


# What stands in a line

def test_json_begins_with_when_how_grave_and_what(written: Written) -> None:
    configure()
    log.warning("done with %s", "it", extra={"number": 3, "seconds": 0.25, "is_last": True, "nothing": None})
    line = written.line()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert {name: line[name] for name in set(line) - {"timestamp"}} == {
        "level": "warning", "event": "done with it", "process": "tests", "logger": "tests.logs",
        "number": 3, "seconds": 0.25, "is_last": True,
    }


def test_text_for_people_says_the_same_without_colours(written: Written) -> None:
    configure("console")
    log.warning("done with %s", "it", extra={"number": 3})
    text = written.text()
    for part in ("[warning", "done with it", "[tests.logs]", "process=tests", "number=3"):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_a_long_value_is_cut_and_says_so(written: Written, form: LogFormat) -> None:
    configure(form)
    log.info("it was", extra={"found": "x" * (MAX_VALUE_LENGTH + 7)})
    text = written.text()
    assert text.count("x") == MAX_VALUE_LENGTH
    assert "... [7 characters left out]" in text


def test_a_long_message_and_a_long_traceback_are_cut(written: Written) -> None:
    configure()
    try:
        raise_it("x" * 10**6, is_cause=False)
    except ValueError:
        log.exception("y" * 10**6)
    line = written.line()
    for name in ("event", "exception"):
        assert len(line[name]) < MAX_VALUE_LENGTH + 50


def test_a_secret_on_the_edge_is_hidden_before_it_is_cut(written: Written) -> None:
    configure(secrets=("a known secret",))
    for secret in (KEY, "a known secret"):
        log.info("%s %s", "x" * (MAX_VALUE_LENGTH - 9), secret)
        assert secret[:8] not in written.text()


def test_lines_say_what_they_are_about_while_it_lasts(written: Written) -> None:
    configure()
    seen = []
    with logs.about(request_id="outer"):
        with logs.about(request_id="inner", job_id="job"):
            logs.from_now_on(job_id="another")
            log.info("it was")
            seen.append(written.line())
            assert logs.request_id() == "inner"
        log.info("it was")
        seen.append(written.line())
    log.info("it was")
    seen.append(written.line())
    assert [(line.get("request_id"), line.get("job_id")) for line in seen] == [
        ("inner", "another"), ("outer", None), (None, None),
    ]
    assert logs.request_id() is None


def test_a_thread_with_the_context_says_it_too(written: Written) -> None:
    configure()
    with logs.about(job_id="job"):
        thread = threading.Thread(target=copy_context().run, args=(log.info, "it was"))
    thread.start()
    thread.join()
    assert written.line()["job_id"] == "job"


def test_the_level_counts_and_can_be_set_again(written: Written) -> None:
    configure()
    log.debug("too little")
    assert written.text() == ""
    logs.configure("json", "DEBUG", process="tests", worker="w-1")
    log.debug("enough")
    assert written.line()["worker"] == "w-1"


# Lines of others

def test_lines_of_uvicorn_have_no_colours(written: Written) -> None:
    configure()
    logging.getLogger("uvicorn.error").info(
        "Started server process [%d]", 7, extra={"color_message": "Started server process [\x1b[36m%d\x1b[0m]"}
    )
    line = written.line()
    assert set(line) == OURS
    assert line["event"] == "Started server process [7]"


def run(code: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and lines of a process."""
    begun = f"import logging, threading\nfrom app.kit import logs\nlogs.configure('json', 'INFO', process='p')\n{code}"
    done = subprocess.run([sys.executable, "-c", begun], check=False, capture_output=True, text=True)
    assert done.stdout == ""
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def test_a_warning_is_a_line() -> None:
    _, (line,) = run(r"import warnings; warnings.warn('first\nsecond')")
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "UserWarning: first\nsecond" in line["event"]


def test_celery_leaves_our_lines_as_they_are() -> None:
    _, lines = run(
        "from worker.celery_app import make_app\n"
        "make_app('memory://').log.setup(loglevel='DEBUG', redirect_stdouts=False)\n"
        "logging.getLogger('celery.worker').info('ready')\n"
        "logging.getLogger('celery.worker').debug('too little')\n"
    )
    assert [(line["logger"], line["event"]) for line in lines] == [("celery.worker", "ready")]


def test_an_uncaught_error_is_one_line() -> None:
    code, (line,) = run(rf"raise ValueError('bad {KEY}\nworse')")
    assert code == 1
    assert (line["logger"], line["level"], line["process"]) == ("uncaught", "critical", "p")
    assert line["event"] == "bad sk_***\nworse"
    assert "ValueError: bad sk_***\nworse" in line["exception"]
    assert KEY not in line["exception"]


def test_an_uncaught_error_of_a_thread_is_one_line() -> None:
    code, (line,) = run(
        "def fail(): raise ValueError('bad')\n"
        "for target in (fail, exit):\n"
        "    thread = threading.Thread(target=target); thread.start(); thread.join()\n"
    )
    assert code == 0
    assert (line["logger"], line["level"], line["event"]) == ("uncaught", "critical", "a thread ended: bad")
    assert "in fail" in line["exception"]


def test_an_interrupt_is_no_error() -> None:
    _, lines = run("raise KeyboardInterrupt")
    assert lines == []
