"""Independent streams of randomness from one seed."""

from hashlib import blake2b


def derive_seed(seed: int, *stream: str | int) -> int:
    """A seed of 63 bits for the named stream: the same on every machine, unrelated to every other stream's."""
    name = "/".join(str(part) for part in (seed, *stream))
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
