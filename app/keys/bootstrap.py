"""The first key: it comes from the settings, so that somebody can make the others."""

from sqlalchemy.orm import Session

from app.keys import queries, service
from app.settings import Settings

MIN_LENGTH = 20


def bootstrap_secret(settings: Settings) -> str | None:
    """The bootstrap key's secret, where one is set. Raises ValueError for one that can be guessed."""
    if settings.bootstrap_key_file is not None:
        secret = settings.bootstrap_key_file.read_text().strip()
    elif settings.bootstrap_key is not None:
        secret = settings.bootstrap_key.get_secret_value()
    else:
        return None
    if len(secret) < MIN_LENGTH:
        raise ValueError(f"the bootstrap key has fewer than {MIN_LENGTH} characters; take sk_ and 40 random letters")
    return secret


def ensure(session: Session, settings: Settings) -> None:
    """Let the bootstrap key be valid, where one is set."""
    secret = bootstrap_secret(settings)
    if secret is not None:
        service.ensure_bootstrap(session, secret)


def has_keys(session: Session) -> bool:
    """Whether anybody can use this service."""
    return session.scalars(queries.any_valid()).one_or_none() is not None
