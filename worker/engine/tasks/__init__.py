"""What models are for, one file each."""

from worker.engine.tasks.classification import ClassificationTask
from worker.engine.tasks.task import Answered, Task

__all__ = ["Answered", "Task", "task_of"]

_TASKS: dict[str, Task] = {task.kind: task for task in (ClassificationTask(),)}


def task_of(kind: str | None) -> Task:
    """The task of a spec; classification where it names none."""
    return _TASKS["classification" if kind is None or kind.endswith("_classification") else kind]
