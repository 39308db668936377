"""Secrets and signatures as Standard Webhooks 1.0 wants them."""

import base64
import secrets as randomness
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

_SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret: a prefix, and 256 random bits in base64."""
    return f"whsec_{base64.b64encode(randomness.token_bytes(_SECRET_BYTES)).decode()}"


def signed_headers(secrets: Sequence[str], message_id: str, body: str, at: datetime) -> dict[str, str]:
    """The headers of a message; one signature for each secret. `at` is UTC, the moment of sending."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in secrets),
    }
