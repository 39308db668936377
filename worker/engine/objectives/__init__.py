"""What a student minimises: pure functions, one file each, and their weighted sum."""

from worker.engine.objectives.composite import OBJECTIVES, Loss
from worker.engine.objectives.views import Views

__all__ = ["OBJECTIVES", "Loss", "Views"]
