"""What a teacher is distilled into."""

from worker.engine.students.families import fit_student

__all__ = ["fit_student"]
