"""What a student minimises: pure functions, one file each, and their weighted sum."""

from worker.engine.objectives.composite import Loss
from worker.engine.objectives.table import LEARNED, OBJECTIVES
from worker.engine.objectives.views import Shapes, Views

__all__ = ["LEARNED", "OBJECTIVES", "Loss", "Shapes", "Views"]
