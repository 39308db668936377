"""All that is looked at, in the order in which one thing needs another."""

from collections.abc import Callable, Iterable, Iterator

from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import SQLAlchemyError

from app.doctor import broker, database, disk, store, workers
from app.keys import bootstrap
from app.kit import logs
from app.settings import Settings
from stillhouse.contract.findings import Examination, Finding, examination, failed, ok, skipped

_PREFIX = "STILLHOUSE_"


def examine(read: Callable[[], Settings]) -> Examination:
    """Look at everything that the settings lead to. No finding shows a credential."""
    try:
        settings = read()
    except (ValidationError, SettingsError) as error:
        return examination(_of_settings(error))
    hide = logs.hider(logs.secrets_of(settings))
    return examination(_without_secrets(hide, _findings(settings)))


def _findings(settings: Settings) -> Iterator[Finding]:
    yield _settings(settings)
    of_database = list(database.look(settings.database_url))
    yield from of_database
    yield from broker.look(settings)
    yield from store.look(settings)
    yield from _workers(settings, of_database)
    yield from disk.look(settings)


def _settings(settings: Settings) -> Finding:
    try:
        bootstrap.bootstrap_secret(settings)
    except (OSError, ValueError) as error:
        return failed("settings", str(error), "Correct the bootstrap key.")
    return ok("settings", "Every setting has a value that makes sense.")


def _of_settings(error: ValidationError | SettingsError) -> Iterator[Finding]:
    """One finding for each that is wrong. What was given is not repeated: it may be a secret."""
    advice = "docs/operations.md has a table of all settings; lists are JSON."
    if isinstance(error, SettingsError):
        yield failed("settings", f"A list is not JSON: {error}.", advice)
        return
    for wrong in error.errors(include_url=False):
        name = f"{_PREFIX}{str(wrong['loc'][0]).upper()}"
        yield failed("settings", f"{name}: {wrong['msg'].removeprefix('Value error, ')}.", advice)


def _workers(settings: Settings, of_database: Iterable[Finding]) -> Iterator[Finding]:
    if any(finding.state == "failed" for finding in of_database):
        yield skipped("workers", "Only the database can tell of them.")
        return
    try:
        yield from workers.look(settings)
    except SQLAlchemyError:
        yield skipped("workers", "The database went away.")


def _without_secrets(hide: Callable[[str], str], findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        told = {"message": finding.message, "advice": finding.advice}
        yield finding.model_copy(update={
            name: logs.on_one_line(hide(text)) for name, text in told.items() if text is not None
        })
