"""The name that was meant."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 20


def hint(name: str, known: Iterable[str]) -> str:
    """For the end of a message about an unknown name: the nearest one, else which there are."""
    names = list(known)
    by_lower = {known_name.lower(): known_name for known_name in names}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"did you mean `{by_lower[near[0]]}`?" if near else f"there are {', '.join(names[:MAX_LISTED]) or 'none'}"
