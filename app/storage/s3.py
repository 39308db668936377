"""Blobs as objects of an S3 bucket, of Amazon or of any server that speaks the protocol."""

import base64
import hashlib
import io
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, BinaryIO, Final, Self
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.settings import MIB, Settings
from app.storage.base import BLOCK, MissingBlobError, RefusedError
from stillhouse.contract.failures import StorageFullError, UnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_FORM: Final = "s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION&path_style=true"
# S3 takes at most so many parts of one object, each of 5 MiB or more but the last; all of one size, since not every
# server takes them otherwise.
_MAX_PARTS: Final = 10_000
_PART_BYTES: Final = 8 * MIB
# One request while a header is inspected: archives are walked from member to member.
_LOOK_BYTES: Final = 4 * MIB
_MAX_CUTS: Final = 4
_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 20
_ATTEMPTS: Final = 3
_PROBE_SECONDS: Final = 1
_MISSING: Final = {"NoSuchKey", "InvalidRange"}
# Not in Amazon's list, whose buckets are never full: of MinIO, Ceph and others.
_FULL: Final = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
_INSUFFICIENT_STORAGE: Final = 507
_SERVER_ERROR: Final = 500
_BUSY: Final = {"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "RequestTimeTooSkewed"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A bucket and a prefix in it; `endpoint` None is Amazon's own."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    path_style: bool = False


def parse_place(url: str) -> Place:
    """The place that an s3:// URL names. Raises ValueError."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = set(given) - {"endpoint", "region", "path_style"}
    if parts.scheme != "s3" or not parts.netloc or unknown or given.get("path_style", "true") not in {"true", "false"}:
        raise ValueError(f"STILLHOUSE_BLOB_URL must be of the form {_FORM}, not {url!r}")
    endpoint, prefix = given.get("endpoint") or None, parts.path.strip("/")
    # Servers other than Amazon's seldom have a host name for each bucket.
    path_style = given["path_style"] == "true" if "path_style" in given else endpoint is not None
    return Place(
        parts.netloc, f"{prefix}/" if prefix else "", endpoint, given.get("region") or Place.region, path_style
    )


def open_s3(settings: Settings) -> "S3Store":
    """The store that the settings name. Raises ValueError where the URL is malformed or no credentials are found.

    Credentials are read here, once: those of the settings, else where boto3 looks for them. A worker calls this before
    it forgets its environment.
    """
    place, secret = parse_place(settings.blob_url), _secret(settings)
    if (settings.s3_access_key is None) != (secret is None):
        raise ValueError("STILLHOUSE_S3_ACCESS_KEY and STILLHOUSE_S3_SECRET_KEY go together: set both, or neither")
    session = boto3.session.Session(
        aws_access_key_id=settings.s3_access_key, aws_secret_access_key=secret, region_name=place.region,
    )
    if session.get_credentials() is None:
        raise ValueError(
            "no credentials for S3: set STILLHOUSE_S3_ACCESS_KEY and STILLHOUSE_S3_SECRET_KEY "
            "(or STILLHOUSE_S3_SECRET_KEY_FILE)"
        )
    part_bytes = max(_PART_BYTES, MIB * ceil(settings.max_upload_bytes / _MAX_PARTS / MIB))
    return S3Store(
        place, _client(session, place, connect=_CONNECT_SECONDS, read=_READ_SECONDS, attempts=_ATTEMPTS),
        prober=_client(session, place, connect=_PROBE_SECONDS, read=_PROBE_SECONDS, attempts=1),
        part_bytes=part_bytes,
    )


def _secret(settings: Settings) -> str | None:
    if settings.s3_secret_key_file is not None:
        return settings.s3_secret_key_file.read_text().strip()
    return settings.s3_secret_key.get_secret_value() if settings.s3_secret_key is not None else None


def _client(
    session: "boto3.session.Session", place: Place, *, connect: float, read: float, attempts: int
) -> "S3Client":
    return session.client("s3", endpoint_url=place.endpoint, config=Config(
        signature_version="s3v4", s3={"addressing_style": "path" if place.path_style else "auto"},
        # Newer checksums are unknown to many servers; each request carries a Content-MD5 instead.
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
        connect_timeout=connect, read_timeout=read, tcp_keepalive=True, max_pool_connections=50,
        retries={"mode": "standard", "total_max_attempts": attempts},
    ))


class S3Store:
    """A bucket. Objects appear in it whole; what is larger than a part comes as a multipart upload."""

    # The one for big files, whatever it is made of: rows stay valid when a folder is copied into a bucket.
    name = "files"

    def __init__(self, place: Place, client: "S3Client", *, prober: "S3Client", part_bytes: int) -> None:
        self.place = place
        self.client = client
        self.part_bytes = part_bytes
        self._prober = prober

    def writer(self, key: str) -> "S3Writer":
        """An object that is not there yet. Touches the network with the first full part, or with the commit."""
        return S3Writer(self, key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), in blocks of at most 1 MiB.

        An answer that is cut is asked for again from there on. Raises MissingBlobError, UnavailableError.
        """
        position, stop, num_cuts = start, end, 0
        while stop is None or position < stop:
            answer = self._get(key, position, stop)
            there = position + answer["ContentLength"]
            stop = there if stop is None else stop
            try:
                with closing(answer["Body"]) as body:
                    for block in body.iter_chunks(BLOCK):
                        position += len(block)
                        num_cuts = 0
                        yield block
            except BotoCoreError as error:
                num_cuts += 1
                if num_cuts > _MAX_CUTS:
                    raise _out_of_reach(error) from error
                time.sleep(0.1 * 2**num_cuts)
                continue
            if there < stop:
                raise MissingBlobError(key)

    def size(self, key: str) -> int:
        """How many bytes the object has. Raises MissingBlobError, UnavailableError."""
        with self._told(key):
            return self.client.head_object(Bucket=self.place.bucket, Key=self.path(key))["ContentLength"]

    def delete(self, key: str) -> None:
        """Remove the object and every unfinished upload of it. Raises UnavailableError."""
        with self._told(key):
            self.client.delete_object(Bucket=self.place.bucket, Key=self.path(key))
            for path, upload, _ in self._uploads(self.path(key)):
                self._abort(path, upload)

    def check(self) -> None:
        """Raises UnavailableError where the bucket does not answer, within some two seconds."""
        with self._told(""):
            self._prober.head_bucket(Bucket=self.place.bucket)

    def drop_unfinished(self, older_than_seconds: float) -> int:
        """Abort uploads that got no part for so long; returns how many. Raises UnavailableError."""
        limit = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with self._told(""):
            old = [
                (path, upload) for path, upload, began in self._uploads(self.place.prefix)
                if began < limit and self._last_part(path, upload, began) < limit
            ]
            for path, upload in old:
                self._abort(path, upload)
        return len(old)

    def close(self) -> None:
        """Let the connections go."""
        self.client.close()
        self._prober.close()

    def path(self, key: str) -> str:
        """The object's name: as a folder of blobs has it, so that one can be copied into a bucket as it is."""
        return f"{self.place.prefix}{key[-2:]}/{key}"

    # For the writer

    def put(self, key: str, content: bytes) -> None:
        """Write an object in one request. Raises StorageFullError, UnavailableError."""
        with self._told(key):
            self.client.put_object(
                Bucket=self.place.bucket, Key=self.path(key), Body=content, ContentMD5=_md5(content)
            )

    def begin(self, key: str) -> str:
        """Begin a multipart upload; its id. Raises StorageFullError, UnavailableError."""
        with self._told(key):
            return self.client.create_multipart_upload(Bucket=self.place.bucket, Key=self.path(key))["UploadId"]

    def put_part(self, key: str, upload: str, number: int, content: bytes) -> str:
        """Write a part, counted from 1; its ETag. Raises StorageFullError, UnavailableError."""
        with self._told(key):
            return self.client.upload_part(
                Bucket=self.place.bucket, Key=self.path(key), UploadId=upload, PartNumber=number, Body=content,
                ContentMD5=_md5(content),
            )["ETag"]

    def complete(self, key: str, upload: str, etags: list[str], size: int) -> None:
        """Make one object of the parts. Raises StorageFullError, UnavailableError."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self._told(key):
            try:
                self.client.complete_multipart_upload(
                    Bucket=self.place.bucket, Key=self.path(key), UploadId=upload,
                    MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item] # a plain dict is one
                )
            except ClientError as error:
                # The answer to a completion may be lost, and a second one then finds no upload but the object.
                if _code(error) != "NoSuchUpload" or self.size(key) != size:
                    raise

    def abort(self, key: str, upload: str) -> None:
        """Drop an unfinished upload. Raises UnavailableError."""
        with self._told(key):
            self._abort(self.path(key), upload)

    def _abort(self, path: str, upload: str) -> None:
        try:
            self.client.abort_multipart_upload(Bucket=self.place.bucket, Key=path, UploadId=upload)
        except ClientError as error:
            if _code(error) != "NoSuchUpload":
                raise

    def _get(self, key: str, start: int, end: int | None) -> "GetObjectOutputTypeDef":
        with self._told(key):
            if start == 0 and end is None:  # an empty object has no range at all
                return self.client.get_object(Bucket=self.place.bucket, Key=self.path(key))
            last = "" if end is None else end - 1
            return self.client.get_object(
                Bucket=self.place.bucket, Key=self.path(key), Range=f"bytes={start}-{last}"
            )

    def _uploads(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.place.bucket, Prefix=prefix)
        for page in pages:
            for upload in page.get("Uploads", ()):
                yield upload["Key"], upload["UploadId"], upload["Initiated"]

    def _last_part(self, path: str, upload: str, began: datetime) -> datetime:
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.place.bucket, Key=path, UploadId=upload
        )
        return max((part["LastModified"] for page in pages for part in page.get("Parts", ())), default=began)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Errors of the protocol as those of a store."""
        try:
            yield
        except ClientError as error:
            raise _meaning(error, key) from error
        except BotoCoreError as error:
            raise _out_of_reach(error) from error


class S3Writer:
    """Gathers a part, and sends each when it is full: memory holds two at most."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store = store
        self._key = key
        self._pending = bytearray()
        self._size = 0
        self._upload: str | None = None
        self._etags: list[str] = []
        self._is_whole = False
        self._is_committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_committed:
            return
        try:
            if self._is_whole:
                self._store.delete(self._key)
            elif self._upload is not None:
                self._store.abort(self._key, self._upload)
        except UnavailableError:
            # Its row in loose_blobs stays, and leads the next sweep to it.
            log.warning("%s: an unfinished upload is left for the sweep", self._key)

    def write(self, content: bytes) -> None:
        """Add bytes. Raises StorageFullError, UnavailableError."""
        assert not self._is_whole  # noqa: S101 - nothing comes after it was looked at
        self._pending += content
        self._size += len(content)
        while len(self._pending) >= self._store.part_bytes:
            self._send(self._store.part_bytes)

    def reopen(self) -> BinaryIO:
        """What was written, to read and to seek in; nothing can be added then.

        What has left this process already is sealed first, since parts cannot be read; it is an object that no row
        knows of until the commit. Raises StorageFullError, UnavailableError.
        """
        if self._upload is None:
            return io.BytesIO(self._pending)
        self._seal()
        return io.BufferedReader(_RangeReader(self._store, self._key, self._size), _LOOK_BYTES)

    def commit(self) -> None:
        """Make one object of what was written. Raises StorageFullError, UnavailableError."""
        self._seal()
        self._is_committed = True

    def _seal(self) -> None:
        if self._is_whole:
            return
        if self._upload is None:
            self._store.put(self._key, bytes(self._pending))
        else:
            if self._pending:
                self._send(len(self._pending))
            self._store.complete(self._key, self._upload, self._etags, self._size)
        self._is_whole = True

    def _send(self, size: int) -> None:
        if self._upload is None:
            self._upload = self._store.begin(self._key)
        number = len(self._etags) + 1
        if number > _MAX_PARTS:
            raise StorageFullError("The blob store does not take files of this size; nothing was kept.")
        with memoryview(self._pending) as view:
            content = bytes(view[:size])
        self._etags.append(self._store.put_part(self._key, self._upload, number, content))
        del self._pending[:size]


class _RangeReader(io.RawIOBase):
    """An object as a file: each read is a ranged request, so wrap it in a buffer."""

    def __init__(self, store: S3Store, key: str, size: int) -> None:
        self._store = store
        self._key = key
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override] # all that ever comes
        end = min(self._position + len(buffer), self._size)
        filled = 0
        for block in self._store.read(self._key, self._position, end) if self._position < end else ():
            buffer[filled:filled + len(block)] = block
            filled += len(block)
        self._position += filled
        return filled


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def _meaning(error: ClientError, key: str) -> Exception:
    code, status = _code(error), error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code in _MISSING or (code == "404" and key):  # what HEAD tells has no name
        return MissingBlobError(key)
    if code in _FULL or status == _INSUFFICIENT_STORAGE:
        return StorageFullError()
    if code in _BUSY or status >= _SERVER_ERROR:
        return _out_of_reach(error)
    log.error("the blob store refuses: %s", error)
    return RefusedError()


def _out_of_reach(error: Exception) -> UnavailableError:
    log.warning("the blob store is out of reach: %s", error)
    return UnavailableError("The blob store is out of reach; try again in a moment.")
