"""Names of rows: a prefix that tells the kind, and 103 random bits."""

import secrets
from typing import Literal

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 20
Prefix = Literal["job", "plan", "art", "key", "blob", "upl", "hook", "msg", "dlv"]


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `job_4x2m9k7q1w8e5r6t3y0u`."""
    number = secrets.randbelow(len(ALPHABET) ** _LENGTH)
    return f"{prefix}_{''.join(ALPHABET[number // len(ALPHABET) ** place % len(ALPHABET)] for place in range(_LENGTH))}"
