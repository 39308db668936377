"""Where soft labels come from. A teacher of kind `train` is trained by the pipeline, with the loop of the student."""

from worker.engine.teachers.folding import folded
from worker.engine.teachers.loading import Loading, load_teacher
from worker.engine.teachers.teacher import NetworkTeacher, Teacher
from worker.engine.teachers.trained import trained_teacher

__all__ = ["Loading", "NetworkTeacher", "Teacher", "folded", "load_teacher", "trained_teacher"]
