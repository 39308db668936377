"""tus 1.0 as headers: what a request says, what every answer says.

The protocol: https://tus.io/protocols/resumable-upload
"""

import base64
import binascii
from collections.abc import Mapping
from email.utils import format_datetime
from typing import Final, TypeVar, get_args

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.artifacts.keeping import Wanted
from app.uploads.models import UploadRow
from app.uploads.receiving import Checksum
from stillhouse.contract.failures import (
    InvalidRequestError,
    TusVersionError,
    UnsupportedChecksumError,
    UnsupportedMediaTypeError,
)
from stillhouse.contract.resources import UploadFormat, UploadKind

PATH: Final = "/uploads"
VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,checksum,expiration,termination"
ALGORITHMS: Final = ("sha1", "sha256", "sha512")
MEDIA_TYPE: Final = "application/offset+octet-stream"
# The id of what the upload has become, for clients that read nothing but headers.
ARTIFACT_HEADER: Final = "Stillhouse-Artifact"
_LONGEST_NAME = 255
_LARGEST = 2**62
_SHA256_DIGITS = 64
_METHODS = {"HEAD", "PATCH", "DELETE"}


Choice = TypeVar("Choice", bound=str)


class Tus:
    """Every answer below /uploads names the protocol, and X-HTTP-Method-Override is the method where it is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{PATH}/"):
            await self.app(scope, receive, send)
            return
        override = Headers(scope=scope).get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and override in _METHODS:
            scope["method"] = override

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({"Tus-Resumable": VERSION, "Tus-Version": VERSION})
            await send(message)

        await self.app(scope, receive, send_named)


def check_version(headers: Mapping[str, str]) -> None:
    """Raises TusVersionError."""
    if headers.get("tus-resumable") != VERSION:
        raise TusVersionError(param="Tus-Resumable")


def check_media_type(headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMediaTypeError."""
    if not has_bytes(headers):
        raise UnsupportedMediaTypeError(param="Content-Type")


def has_bytes(headers: Mapping[str, str]) -> bool:
    """Whether the body is bytes of an upload."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


def length_of(headers: Mapping[str, str]) -> int:
    """Upload-Length. Raises InvalidRequestError."""
    if "upload-defer-length" in headers:
        raise InvalidRequestError(
            "The length must be known when the upload begins; send Upload-Length.", param="Upload-Defer-Length"
        )
    return _number(headers, "Upload-Length")


def offset_of(headers: Mapping[str, str]) -> int:
    """Upload-Offset. Raises InvalidRequestError."""
    return _number(headers, "Upload-Offset")


def checksum_of(headers: Mapping[str, str]) -> Checksum | None:
    """Upload-Checksum, if there is one. Raises UnsupportedChecksumError, InvalidRequestError."""
    header = headers.get("upload-checksum")
    if header is None:
        return None
    algorithm, _, digest = header.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise UnsupportedChecksumError(param="Upload-Checksum")
    return Checksum(algorithm, _decoded(digest, "Upload-Checksum"))


def wanted_of(headers: Mapping[str, str]) -> Wanted:
    """Upload-Metadata: `kind`, and as far as given `name` (or `filename`), `format`, `sha256`.

    Keys that are not known here are passed over. Raises InvalidRequestError.
    """
    told = _metadata(headers.get("upload-metadata", ""))
    sha256 = told.get("sha256")
    if sha256 is not None and not _is_sha256(sha256):
        raise InvalidRequestError("sha256 in Upload-Metadata is not 64 hexadecimal digits.", param="sha256")
    name = told.get("name") or told.get("filename") or "unnamed"
    if len(name) > _LONGEST_NAME:
        raise InvalidRequestError(
            f"The name in Upload-Metadata is longer than {_LONGEST_NAME} characters.", param="name"
        )
    kinds: tuple[UploadKind, ...] = get_args(UploadKind)
    formats: tuple[UploadFormat, ...] = get_args(UploadFormat)
    return Wanted(
        kind=_one_of(kinds, told.get("kind"), "kind"), name=name,
        format=_one_of(formats, told["format"], "format") if told.get("format") else None, sha256=sha256,
    )


def state_headers(row: UploadRow) -> dict[str, str]:
    """Where the upload stands."""
    told = {"Upload-Offset": str(row.received), "Upload-Expires": format_datetime(row.expires_at, usegmt=True)}
    return told | ({ARTIFACT_HEADER: row.artifact_id} if row.artifact_id else {})


def _metadata(header: str) -> dict[str, str]:
    pairs = [pair.strip().partition(" ") for pair in header.split(",") if pair.strip()]
    if len({key for key, _, _ in pairs}) < len(pairs):
        raise InvalidRequestError("A key of Upload-Metadata is there twice.", param="Upload-Metadata")
    try:
        return {key: _decoded(value, "Upload-Metadata").decode() for key, _, value in pairs}
    except UnicodeDecodeError as error:
        raise InvalidRequestError("A value of Upload-Metadata is not UTF-8.", param="Upload-Metadata") from error


def _decoded(text: str, header: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"A value of {header} is not base64.", param=header) from error


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_LARGEST)) or int(text) >= _LARGEST:
        raise InvalidRequestError(f"{name} must be a whole number of bytes.", param=name)
    return int(text)


def _one_of(allowed: tuple[Choice, ...], value: str | None, name: str) -> Choice:
    for choice in allowed:
        if choice == value:
            return choice
    raise InvalidRequestError(f"{name} in Upload-Metadata must be one of {', '.join(allowed)}.", param=name)


def _is_sha256(text: str) -> bool:
    return len(text) == _SHA256_DIGITS and all(digit in "0123456789abcdefABCDEF" for digit in text)
