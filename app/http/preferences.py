"""What a client would like, as RFC 7240 has it say: `Prefer: wait=10`. What cannot be understood is ignored."""


def wait_seconds(prefer: str, *, usual: int, most: int) -> int:
    """How long the client wants to wait for an answer that takes time, in whole seconds, at most `most`.

    `respond-async` without a time means not at all; nothing said, `usual`.
    """
    wanted = _preferences(prefer)
    told = wanted.get("wait", "")
    if told.isascii() and told.isdigit():
        return min(int(told[:9]), most)
    return 0 if "respond-async" in wanted else usual


def _preferences(prefer: str) -> dict[str, str]:
    """Values by name; of several of one name the first counts."""
    pairs = [part.partition(";")[0].partition("=") for part in prefer.split(",")]
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in reversed(pairs)}
