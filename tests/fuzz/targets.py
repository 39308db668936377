"""Every parser of ours that meets bytes of strangers, as a function of bytes.

Each may raise nothing: what is refused is refused by a StillhouseError (or by what the parser documents), which is
caught here. Anything else that comes out is a finding.
"""

import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Final, get_args

from fastapi import Request
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session
from starlette.datastructures import Headers

from app.artifacts.inspection import IdxFacts, NpzFacts, guess_format, inspect
from app.http.bodies import parsed
from app.http.downloads import Content, serve
from app.http.preferences import wait_seconds
from app.jobs import queries
from app.jobs.spec_reading import read_spec
from app.keys.schemas import NewKey
from app.kit.database import Base
from app.uploads import protocol as tus
from app.webhooks.schemas import NewWebhook
from stillhouse.cli import shorthand
from stillhouse.cli.exits import UsageError
from stillhouse.contract.archives import walk
from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.resources import UploadFormat, UploadKind
from stillhouse.models.checkpoint import load_checkpoint
from stillhouse.models.images import open_image
from worker.engine.data.idx import read_idx
from worker.engine.data.npz import read_npz
from worker.engine.data.room import Room
from worker.orders import ProtocolError, receive_event

Target = Callable[[bytes], None]

# What the engine may decode into, of files that are a few kilobytes.
_MOST_DECODED: Final = 16 * 1024**2
_MOST_READ: Final = 64 * 1024
_SHA256: Final = "5f" * 32
_SENT: Final = (200, 206, 304, 416)


def _file(upload_format: UploadFormat, content: bytes) -> None:
    """A file as the API inspects it, and what that lets in as the engine reads it."""
    if not content:
        return
    with suppress(StillhouseError):
        facts = inspect(io.BytesIO(content), len(content), upload_format)
        if isinstance(facts, IdxFacts | NpzFacts):
            _read(facts, content)


def _read(facts: IdxFacts | NpzFacts, content: bytes) -> None:
    with _stored(content) as path:
        if isinstance(facts, IdxFacts):
            read_idx(path, Room(budget=_MOST_DECODED))
            return
        for name in facts.arrays:
            with suppress(StillhouseError):
                read_npz(path, name, Room(budget=_MOST_DECODED))


@contextmanager
def _stored(content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _format(content: bytes) -> None:
    """A file that does not say what it is."""
    kinds: tuple[UploadKind, ...] = get_args(UploadKind)
    for kind in kinds:
        guess_format(io.BytesIO(content), kind)


def _archive(content: bytes) -> None:
    """An archive whose members are read."""
    with suppress(StillhouseError):
        for member in walk(io.BytesIO(content), len(content)):
            member.read(_MOST_READ)


def _image(content: bytes) -> None:
    """An encoded image as the engine decodes it."""
    with suppress(StillhouseError):
        open_image(content)


def _checkpoint(content: bytes) -> None:
    """A teacher as the engine loads it, by what the file says of itself."""
    with suppress(StillhouseError), _stored(content) as path:
        load_checkpoint(path)


def _spec(content: bytes) -> None:
    """The body of POST /jobs."""
    with suppress(StillhouseError):
        read_spec(content)


def _bodies(content: bytes) -> None:
    """The bodies of POST /keys and POST /webhooks."""
    for model in (NewKey, NewWebhook):
        with suppress(StillhouseError):
            parsed(model, content)


def _event(content: bytes) -> None:
    """What a trainer says to its supervisor."""
    near, far = Pipe()
    with near, far, suppress(ProtocolError, EOFError):
        # A word that fits into the pipe's buffer, so that one thread can send and receive it.
        far.send_bytes(content[:_MOST_READ])
        receive_event(near)


def _tus(content: bytes) -> None:
    """Headers of resumable uploads."""
    headers = _headers(content)
    readers: tuple[Callable[[Mapping[str, str]], object], ...] = (
        tus.check_version, tus.check_media_type, tus.length_of, tus.offset_of, tus.checksum_of, tus.wanted_of,
    )
    for read in readers:
        with suppress(StillhouseError):
            read(headers)


def _headers(content: bytes) -> Headers:
    """Lines `name: value`, as a server hands them on: bytes of Latin-1, no line ends."""
    pairs = (line.partition(b":") for line in content.splitlines())
    return Headers(raw=[(name.strip().lower(), value.strip()) for name, _, value in pairs])


def _download(content: bytes) -> None:
    """Range, If-Range, If-None-Match and Prefer of a request."""
    request = Request({"type": "http", "path": "/", "headers": _headers(content).raw, "state": {}})
    stored = Content("x", "text/plain", 100, _SHA256, lambda start, end: iter([bytes(end - start)]))
    answer = serve(request, stored)
    assert answer.status_code in _SENT
    length = answer.headers.get("content-length", "0")
    if answer.status_code == _SENT[1]:
        first, last = map(int, re.findall(r"\d+", answer.headers["content-range"])[:2])
        assert 0 <= first <= last < stored.size
        assert int(length) == last - first + 1
    assert 0 <= wait_seconds(request.headers.get("prefer", ""), usual=1, most=60) <= 60


def _cursor(content: bytes) -> None:
    """A page's cursor and filters, down to the database that is asked."""
    text = content.decode("utf-8", "surrogateescape")
    with suppress(StillhouseError), Session(_database()) as session:
        listed = queries.listed("ann", status=None, name=text, labels={text: text}, cursor=text)
        session.scalars(listed).all()


@cache
def _database() -> Engine:
    """An empty one, in memory."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    return engine


def _shorthand(content: bytes) -> None:
    """Words of a command line."""
    text = content.decode("utf-8", "surrogateescape")
    readers: tuple[Callable[[str], object], ...] = (
        shorthand.student, shorthand.architecture, lambda text: shorthand.labels([text]),
    )
    for read in readers:
        with suppress(UsageError):
            read(text)


_FORMATS: Final[tuple[UploadFormat, ...]] = get_args(UploadFormat)
TARGETS: Final[Mapping[str, Target]] = {
    **{upload_format: partial(_file, upload_format) for upload_format in _FORMATS},
    "archive": _archive, "bodies": _bodies, "checkpoint": _checkpoint, "cursor": _cursor, "download": _download,
    "event": _event, "format": _format, "image": _image, "shorthand": _shorthand, "spec": _spec, "tus": _tus,
}
