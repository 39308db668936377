"""Signatures are what Standard Webhooks wants; the oracles are its published vector and the definition."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks.signing import new_secret, signed_headers

# From the test suites of the reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - published  # pragma: allowlist secret
AT = datetime.fromtimestamp(1614265330, UTC)
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_published_vector_is_signed_as_published() -> None:
    headers = signed_headers([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', AT)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",  # pragma: allowlist secret
        "webhook-signature": SIGNATURE,
    }


def test_a_signature_is_hmac_sha256_of_id_time_and_body() -> None:
    secret, body = new_secret(), '{"name": "größer"}'
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"msg_1.1614265330.{body}".encode(), hashlib.sha256)
    told = signed_headers([secret], "msg_1", body, AT)["webhook-signature"]
    assert told == f"v1,{base64.b64encode(digest).decode()}"


def test_each_secret_signs() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers([new, old], "msg_1", "{}", datetime.now(UTC))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify("{}", headers)


def test_a_secret_has_256_bits_and_is_never_the_same() -> None:
    made = {new_secret() for _ in range(5)}
    assert len(made) == 5
    assert all(secret.startswith("whsec_") for secret in made)
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in made} == {32}
