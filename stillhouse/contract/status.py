"""The job's life as one table: which status may follow which, and what a user may ask for in each."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

# A plan lives as a job does, but ends with preflight. It is not listed, and forgotten after a while.
Kind = Literal["job", "plan"]
# What a user who cancels a job may want all the same: the best student so far, as the job's model.
Keep = Literal["best"]


class Status(StrEnum):
    """Where a job stands. A terminal status is final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """What a running job is doing, in the order in which a job goes through it."""

    STAGING = "staging"
    PREFLIGHT = "preflight"
    TEACHER = "teacher"
    SOFT_LABELS = "soft_labels"
    DISTILLING = "distilling"
    CONTROL = "control"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"


class Action(StrEnum):
    """What a user may ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


class Request(StrEnum):
    """What a supervisor asks of its trainer.

    At `finish` it trains no further, and evaluates and exports the best student so far; one that has none ends at once.
    At all others it writes a checkpoint and ends.
    """

    PAUSE = "pause"
    CANCEL = "cancel"
    DRAIN = "drain"
    FINISH = "finish"


TRANSITIONS: Final = MappingProxyType({
    # queued -> cancelling: a worker has claimed it to export the best student of a job that was cancelled.
    Status.QUEUED: frozenset({
        Status.RUNNING, Status.PAUSED, Status.CANCELLING, Status.CANCELLED, Status.FAILED,
    }),
    # running -> queued: the worker drained, or was lost.
    Status.RUNNING: frozenset({
        Status.SUCCEEDED, Status.FAILED, Status.PAUSING, Status.CANCELLING, Status.QUEUED,
    }),
    Status.PAUSING: frozenset({
        Status.PAUSED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED,
    }),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    # cancelling -> queued: the worker that was to export the best student drained, or was lost.
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.SUCCEEDED, Status.FAILED, Status.QUEUED}),
    Status.SUCCEEDED: frozenset[Status](),
    Status.FAILED: frozenset[Status](),
    Status.CANCELLED: frozenset[Status](),
})

# Where a job goes when the worker that held it is lost. One whose best student is to be kept is queued again.
AFTER_LOSS: Final = MappingProxyType({
    Status.RUNNING: Status.QUEUED,
    Status.PAUSING: Status.PAUSED,
    Status.CANCELLING: Status.CANCELLED,
})

# A worker holds a lease in exactly these.
LEASED: Final = frozenset(AFTER_LOSS)
TERMINAL: Final = frozenset(status for status, following in TRANSITIONS.items() if not following)
UNENDED: Final = frozenset(Status) - TERMINAL

# What makes a difference in each status.
ACTIONS: Final = MappingProxyType({
    Status.QUEUED: frozenset({Action.CANCEL, Action.PAUSE}),
    Status.RUNNING: frozenset({Action.CANCEL, Action.PAUSE}),
    Status.PAUSING: frozenset({Action.CANCEL}),
    Status.PAUSED: frozenset({Action.CANCEL, Action.RESUME}),
    Status.CANCELLING: frozenset({Action.CANCEL}),
    Status.SUCCEEDED: frozenset({Action.RETRY}),
    Status.FAILED: frozenset({Action.RETRY}),
    Status.CANCELLED: frozenset({Action.RETRY}),
})

# Where the user has what was asked for already: asking again changes nothing and is no error.
HEEDED: Final = MappingProxyType({
    Action.CANCEL: frozenset({Status.CANCELLING}),
    Action.PAUSE: frozenset({Status.PAUSING, Status.PAUSED}),
    Action.RESUME: frozenset({Status.QUEUED, Status.RUNNING}),
    Action.RETRY: frozenset[Status](),  # each time makes another job
})


def actions(status: Status, kind: Kind = "job", keep: Keep | None = None) -> frozenset[Action]:
    """What a user may ask of a job in this status.

    A plan can only be cancelled, and so can a cancelled job whose best student is still to be exported.
    """
    if kind == "plan" or (keep and status not in TERMINAL):
        return ACTIONS[status] & {Action.CANCEL}
    return ACTIONS[status]


def may_follow(current: Status, following: Status) -> bool:
    """Whether the graph has an edge from `current` to `following`."""
    return following in TRANSITIONS[current]


def sources(following: Status) -> frozenset[Status]:
    """Every status that may turn into `following`: the WHERE of a compare-and-swap."""
    return frozenset(status for status in TRANSITIONS if following in TRANSITIONS[status])
