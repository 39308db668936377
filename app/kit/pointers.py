"""JSON pointers (RFC 6901)."""


def step(part: int | str) -> str:
    """One step of a pointer, with its slash: into an array by its index, into an object by its key."""
    return "/" + str(part).replace("~", "~0").replace("/", "~1")
