"""Teachers that the job trained itself."""

from torch import nn

from stillhouse.contract.spec import Architecture
from worker.engine.data import Dataset
from worker.engine.teachers.teacher import NetworkTeacher


def trained_teacher(model: nn.Module, architecture: Architecture, dataset: Dataset) -> NetworkTeacher:
    """A model that learned from this very data set, and reads it as the student does."""
    return NetworkTeacher(model.eval().requires_grad_(requires_grad=False), architecture, dataset.preprocessing)
