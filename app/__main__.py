"""`python -m app` serves the API; `migrate` brings the database up to date; `doctor` looks at every back end."""

import contextlib
import gc
import ipaddress
import logging
import sys
from types import FrameType

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from app.http.server import server_options
from app.keys import bootstrap
from app.kit import logs
from app.kit.database import Database
from app.main import create_app
from app.settings import Settings, settings


class _Server(uvicorn.Server):
    """Ends the streams of watchers as soon as it is asked to stop; else it would wait for them."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.loaded_app
        if hasattr(app, "state"):
            app.state.parts.watching.close()
        super().handle_exit(sig, frame)


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status."""
    match arguments:
        case []:
            return _serve(settings())
        case ["migrate"]:
            return _migrate(settings())
        case ["doctor", *options] if set(options) <= {"--json"}:
            return _examine(as_json=bool(options))
        case _:
            return _complain("usage: python -m app [migrate | doctor [--json]]")


def _migrate(wanted: Settings) -> int:
    # Alembic is loaded here only: serving does without.
    from app.kit.migrate import upgrade  # noqa: PLC0415

    upgrade(wanted.database_url)
    return 0


def _examine(*, as_json: bool) -> int:
    from app.doctor import examining, telling  # noqa: PLC0415 - loads Alembic

    # What libraries have to say of a back end that is away stands in the findings.
    logging.disable()
    found = examining.examine(settings)
    lines = [found.model_dump_json(indent=2)] if as_json else telling.lines(found)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0 if found.is_well else 1


def _serve(wanted: Settings) -> int:
    problem = _unsafe(wanted)
    if problem is not None:
        return _complain(problem)
    logs.configure(wanted.log_format, wanted.log_level, process="api", secrets=logs.secrets_of(wanted))
    config = uvicorn.Config(create_app(wanted), **server_options(wanted))
    # What is loaded by now stays. To look through all of it for garbage, now and then, stops every request meanwhile.
    gc.collect()
    gc.freeze()
    # Uvicorn raises the signal that ended it once more, when all is closed.
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config).run()
    return 0


def _unsafe(wanted: Settings) -> str | None:
    """Why this must not be served; None when it may."""
    try:
        secret = bootstrap.bootstrap_secret(wanted)
    except (OSError, ValueError) as error:
        return str(error)
    try:
        has_keys = _has_keys(wanted) or secret is not None
    except SQLAlchemyError as error:
        return f"the database is out of reach or has no tables yet (run: python -m app migrate): {error.args[0]}"
    if not has_keys and not _is_loopback(wanted.host):
        return (
            f"{wanted.host} can be reached from other machines, and there is no API key. Set STILLHOUSE_BOOTSTRAP_KEY "
            "(sk_ and 40 random letters) or STILLHOUSE_BOOTSTRAP_KEY_FILE, or bind to 127.0.0.1."
        )
    return None


def _has_keys(wanted: Settings) -> bool:
    db = Database(wanted.database_url)
    try:
        with db.reading() as session:
            return bootstrap.has_keys(session)
    finally:
        db.dispose()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _complain(message: str) -> int:
    sys.stderr.write(f"stillhouse: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
