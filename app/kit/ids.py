"""Names of rows: a prefix that tells the kind, and 103 random bits."""

import secrets
from typing import Literal

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
Prefix = Literal["job", "plan", "art", "key", "blob", "upl", "hook", "msg", "dlv"]


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `job_4x2m9k7q1w8e5r6t3y0u`."""
    return f"{prefix}_{''.join(secrets.choice(ALPHABET) for _ in range(20))}"
