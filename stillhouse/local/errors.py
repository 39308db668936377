"""Why the local service cannot start, or has stopped."""


class LocalServiceError(Exception):
    """The local service cannot run; the text says why and what to do."""


class ComponentDiedError(LocalServiceError):
    """A process of the local service ended though nobody asked it to."""
