"""Whether the store of big files keeps what is written, and gives it back as it was."""

import secrets
from collections.abc import Iterator
from typing import Final

from app.kit.ids import new_id
from app.settings import Settings
from app.storage.base import BlobStore, MissingBlobError
from app.storage.stores import open_files
from stillhouse.contract.failures import StorageFullError, UnavailableError
from stillhouse.contract.findings import Finding, failed, ok

_SIZE: Final = 4096
_PART: Final = slice(1000, 3000)
_RIGHTS = (
    "Give its credentials the rights that docs/operations.md lists, on the bucket and on the objects below the prefix."
)
# What S3 and servers that speak its protocol call what is wrong.
_OF_S3: Final = {
    "NoSuchBucket": ("There is no such bucket", "Make the bucket, or correct it in STILLHOUSE_BLOB_URL."),
    "InvalidAccessKeyId": (
        "The access key is not known", "Correct STILLHOUSE_S3_ACCESS_KEY, or the endpoint in STILLHOUSE_BLOB_URL."
    ),
    "SignatureDoesNotMatch": (
        "The secret key does not belong to the access key", "Correct STILLHOUSE_S3_SECRET_KEY (or its file)."
    ),
    "AccessDenied": ("The credentials may not do this", _RIGHTS),
    "RequestTimeTooSkewed": ("This machine's clock and the store's are too far apart", "Set both by NTP."),
    "PermanentRedirect": ("The bucket is in another region", "Name it in STILLHOUSE_BLOB_URL: ...&region=REGION"),
    "AuthorizationHeaderMalformed": (
        "The bucket is in another region", "Name it in STILLHOUSE_BLOB_URL: ...&region=REGION"
    ),
}


def look(settings: Settings) -> Iterator[Finding]:
    """Write, read, compare and delete a small file; where it is S3, begin and abort an upload in parts as well."""
    try:
        store = open_files(settings)
    except ValueError as error:
        yield failed("store", str(error), "Correct the setting.")
        return
    except OSError as error:
        yield _of_folder(error)
        return
    try:
        yield _round_trip(store)
        if settings.blob_url.startswith("s3:"):
            yield _in_parts(store)
    except StorageFullError:
        yield failed(
            "store", f"The store is full: a file must leave {settings.min_free_bytes} bytes free.",
            "Make room, or lower STILLHOUSE_MIN_FREE_BYTES.",
        )
    except UnavailableError as error:
        yield _of_s3(error)
    except OSError as error:
        yield _of_folder(error)
    finally:
        store.close()


def _round_trip(store: BlobStore) -> Finding:
    key, content = new_id("blob"), secrets.token_bytes(_SIZE)
    with store.writer(key) as writer:
        writer.write(content)
        writer.commit()
    try:
        whole = b"".join(store.read(key))
        part = b"".join(store.read(key, _PART.start, _PART.stop))
    except MissingBlobError:
        return failed(
            "store", "A file that was written could not be found, or not all of it.", "See who else cleans up there."
        )
    finally:
        store.delete(key)
    if whole != content or part != content[_PART]:
        return failed(
            "store", "A file did not come back as it was written.", "Do not use this store: look for a proxy or cache."
        )
    return ok("store", "A file was written, read whole and in part, compared and deleted.")


def _in_parts(store: BlobStore) -> Finding:
    """As large files go up: a part, and an end to it before it is whole."""
    from app.storage.s3 import S3Store  # noqa: PLC0415 - loads boto3, which a folder does not need

    assert isinstance(store, S3Store)  # noqa: S101 - what the scheme makes
    key = new_id("blob")
    upload = store.begin(key)
    try:
        store.put_part(key, upload, 1, b"x")
    finally:
        store.abort(key, upload)
    return ok("store, parts", "An upload in parts was begun, written to and aborted.")


def _of_folder(error: OSError) -> Finding:
    place = error.filename or "STILLHOUSE_BLOB_URL"
    return failed(
        "store", f"The folder of the store cannot be used: {error.strerror or error}: {place}.",
        "Let the user that runs this read and write the folder of STILLHOUSE_BLOB_URL, on every machine.",
    )


def _of_s3(error: UnavailableError) -> Finding:
    cause = error.__cause__
    told: dict[str, dict[str, str]] = getattr(cause, "response", {})
    code = told.get("Error", {}).get("Code", "")
    if code in _OF_S3:
        meaning, advice = _OF_S3[code]
        return failed("store", f"{meaning} ({code}).", advice)
    if code:
        return failed("store", f"The store refuses: {told['Error'].get('Message') or code} ({code}).", _RIGHTS)
    return failed(
        "store", f"The store is out of reach: {str(cause or error).rstrip('.')}.",
        "Start it, or correct the endpoint in STILLHOUSE_BLOB_URL.",
    )
