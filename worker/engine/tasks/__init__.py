"""What models are for, one file each."""

from stillhouse.contract.spec import MultiLabel
from stillhouse.contract.spec import Task as Section
from worker.engine.tasks.classification import ClassificationTask
from worker.engine.tasks.embedding import EmbeddingTask
from worker.engine.tasks.multi_label import MultiLabelTask
from worker.engine.tasks.regression import RegressionTask
from worker.engine.tasks.task import Answered, Task

__all__ = ["Answered", "Task", "task_of"]

_TASKS: dict[str, Task] = {task.kind: task for task in (ClassificationTask(), RegressionTask(), EmbeddingTask())}


def task_of(section: Section) -> Task:
    """The task of a spec's section."""
    return MultiLabelTask(section) if isinstance(section, MultiLabel) else _TASKS[section.kind]
