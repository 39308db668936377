"""Looks at a service as a user meets it, and says what is wrong in plain words."""

import secrets
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx

from stillhouse import __version__, wording
from stillhouse.client.api import Client
from stillhouse.client.connection import Connection, parsed
from stillhouse.client.errors import StillhouseApiError, StillhouseClientError, error_of
from stillhouse.contract.findings import Finding, failed, ok, skipped, warning
from stillhouse.contract.resources import HeldKey

# Seconds: whoever looks for a fault does not want to wait for it.
_TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
_SAMPLE_BYTES: Final = 4096
_NEARLY: Final = 0.9
_SOON: Final = timedelta(days=7)
_OPERATOR = "Tell whoever runs the service: `python -m app doctor` there says more."
_LIMITS: Final = {
    "stored_bytes": ("stored", "Delete artifacts that are no longer needed: `stillhouse artifacts --delete ID`."),
    "queued_jobs": ("jobs queued", "Wait until some have begun, or cancel some."),
    "running_jobs": ("jobs running", "Further jobs wait until one of these has ended."),
}


def examine(url: str, key: str | None) -> Iterator[Finding]:
    """Look at the service at this address, with this key; each finding comes when it is made."""
    try:
        connection = Connection(url, key)
    except StillhouseClientError as error:
        yield failed("address", str(error), "Give the address of the service with --url or STILLHOUSE_URL.")
        return
    try:
        connection.http.timeout = _TIMEOUT
        yield (reached := _reached(connection))
        if reached.state == "failed":
            return
        yield _version(connection)
        yield from _ready(connection)
        held = _key(connection)
        yield from held if isinstance(held, list) else _held(held)
        yield _round_trip(url, key, None if isinstance(held, list) else held)
    finally:
        connection.close()


def _reached(connection: Connection) -> Finding:
    check = "service"
    try:
        answer = connection.http.get("/healthz")
    except httpx.TransportError as error:
        return failed(check, f"{_sentence(str(connection.explained(error)))}.", _advice(error))
    if answer.is_success and _json(answer).get("status") == "ok":
        return ok(check, f"{connection.url} answers in {wording.milliseconds(answer.elapsed.total_seconds() * 1000)}.")
    problem = error_of(answer) if answer.is_error else None
    if problem is not None and problem.code == "forbidden_origin":
        return failed(
            check, f"{connection.url} does not take requests that are addressed to {answer.request.url.host}.",
            "Have STILLHOUSE_ALLOWED_HOSTS of the service name this host, or use a name that it knows.",
        )
    return failed(
        check, f"Something answers at {connection.url}, but it is not Stillhouse ({answer.status_code}).",
        "Look at host, port and path of the address; a proxy before the service may answer in its place.",
    )


def _advice(error: httpx.TransportError) -> str:
    told = str(error)
    if isinstance(error, httpx.ConnectTimeout):
        return "Look at the network and its firewalls between here and there."
    if "refused" in told:
        return "Start the service (`stillhouse up` on this machine), or correct the port."
    if "SSL" in told or "CERTIFICATE" in told:
        return "Look at https or http in the address, and at the certificate of the service."
    if isinstance(error, httpx.ConnectError):
        return "Look at the name of the host in the address, and at the network."
    return "Try again; if that does not help, look at proxies on the way."


def _version(connection: Connection) -> Finding:
    check = "version"
    try:
        theirs = _json(connection.http.get("/openapi.json")).get("info", {}).get("version")
    except httpx.TransportError as error:
        return warning(check, f"{_sentence(str(connection.explained(error)))}.", "Try again.")
    if theirs is None:
        return warning(check, "The service does not tell its version.", "Look for a proxy that hides /openapi.json.")
    if theirs != __version__:
        return warning(
            check, f"The service is {theirs}, this client {__version__}.",
            "Most will work; what one of the two does not know will not. Install the client of the same version.",
        )
    return ok(check, f"Service and client are {theirs}.")


def _ready(connection: Connection) -> Iterator[Finding]:
    """What the service says of its own back ends."""
    check = "ready"
    try:
        answer = connection.http.get("/readyz")
    except httpx.TransportError as error:
        yield failed(check, f"{_sentence(str(connection.explained(error)))}.", _OPERATOR)
        return
    if answer.is_success:
        yield ok(check, "Its database, broker and store answer.")
        return
    problem = error_of(answer)
    for wrong in problem.errors:
        yield failed(f"its {wrong.pointer.lstrip('/')}", f"{_sentence(wrong.detail)}.", _OPERATOR)
    if not problem.errors:
        yield failed(check, f"{_sentence(problem.message)}.", _OPERATOR)


def _key(connection: Connection) -> HeldKey | list[Finding]:
    """The key that is held, or why it is none."""
    check, header = "key", "Authorization"
    if header not in connection.http.headers:
        return [failed(check, "No key was given.", "Give one with --key or STILLHOUSE_API_KEY.")]
    try:
        answer = connection.http.get("/keys/current")
        if answer.is_error:
            return [_refused(error_of(answer))]
        return parsed(HeldKey, answer)
    except httpx.TransportError as error:
        return [failed(check, f"{_sentence(str(connection.explained(error)))}.", _OPERATOR)]
    except StillhouseClientError as error:
        return [failed(check, f"{_sentence(str(error))}.", _OPERATOR)]


def _refused(error: StillhouseApiError) -> Finding:
    check = "key"
    if error.status == HTTPStatus.UNAUTHORIZED:
        return failed(
            check, f"The service does not take the key: {error.message.rstrip('.')}.",
            "Give the right one with --key or STILLHOUSE_API_KEY, or ask an administrator for a new one.",
        )
    if error.is_one_too_many:
        return warning(check, error.message, "Send fewer requests, or ask the operator for a higher rate.")
    if error.status == HTTPStatus.NOT_FOUND:
        return warning(check, "The service is too old to tell about keys.", "Have it brought to this client's release.")
    return failed(check, f"{_sentence(error.message)}. [{error.code}]", _OPERATOR)


def _held(key: HeldKey) -> Iterator[Finding]:
    may = f"It is {key.name!r} of {key.owner}, and may {', '.join(key.scopes)}."
    left = key.expires_at - datetime.now(UTC) if key.expires_at else None
    if left is not None and left < _SOON:
        yield warning("key", f"{may} It ends at {key.expires_at:%Y-%m-%d %H:%M} UTC.", "Ask for a new one in time.")
    else:
        yield ok("key", may)
    limits = {name: getattr(key.in_force, name) for name in _LIMITS}
    if key.in_force.requests_per_minute:
        yield ok("limits", f"{key.in_force.requests_per_minute} requests a minute.")
    if not any(limits.values()):
        yield ok("limits", f"No quota; {wording.size(key.used.stored_bytes)} stored.")
    for name, most in limits.items():
        if most:
            yield _of_limit(name, getattr(key.used, name), most)


def _of_limit(name: str, used: int, most: int) -> Finding:
    noun, advice = _LIMITS[name]
    told = wording.size if name == "stored_bytes" else wording.count
    message = f"{told(used)} of {told(most)} {noun}; {told(max(0, most - used))} left."
    return warning("limits", message, advice) if used >= _NEARLY * most else ok("limits", message)


def _round_trip(url: str, key: str | None, held: HeldKey | None) -> Finding:
    """Store a small file, fetch it, compare it, delete it."""
    check = "round trip"
    if held is None:
        return skipped(check, "Without a key nothing can be stored.")
    missing = {"read", "submit"} - set(held.scopes)
    if missing:
        return skipped(check, f"This key may not {' or '.join(sorted(missing))}.")
    try:
        with Client(url, key) as client, tempfile.TemporaryDirectory() as folder:
            return _stored_and_fetched(client, Path(folder))
    except StillhouseApiError as error:
        return failed(check, f"{_sentence(error.message)}. [{error.code}]", "docs/errors.md tells what to do.")
    except StillhouseClientError as error:
        return failed(check, f"{_sentence(str(error))}.", _OPERATOR)


def _stored_and_fetched(client: Client, folder: Path) -> Finding:
    # Of a format that the service reads, and like nothing that is stored already.
    sent = b"\0\0\x08\x01" + _SAMPLE_BYTES.to_bytes(4, "big") + secrets.token_bytes(_SAMPLE_BYTES)
    (folder / "sent").write_bytes(sent)
    stored = client.upload(folder / "sent", kind="data", format="idx", name="stillhouse doctor")
    try:
        back = client.download_artifact(stored.id, folder / "back").read_bytes()
    finally:
        client.delete_artifact(stored.id)
    if back != sent:
        return failed("round trip", "A file came back as another one.", _OPERATOR)
    return ok("round trip", "A small file was stored, fetched, compared and deleted.")


def _sentence(text: str) -> str:
    """With a capital, and without the full stop."""
    return f"{text[:1].upper()}{text[1:]}".rstrip(".")


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
