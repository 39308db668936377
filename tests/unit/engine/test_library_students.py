"""Jobs whose models come from a library."""

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.lessons import TEACHER, Lesson, everything

# Stochastic depth and dropout draw at every step.
STUDENT = {"kind": "timm", "name": "resnet10t", "config": {"drop_path_rate": 0.3, "drop_rate": 0.2}}


@pytest.mark.slow
def test_a_student_of_a_library_resumes_as_if_it_had_never_stopped(lesson: Lesson) -> None:
    torch.save(load_file(lesson.inputs[TEACHER]), lesson.folder / "teacher.pt")
    lesson.inputs[TEACHER] = lesson.folder / "teacher.pt"
    teacher = {"kind": "checkpoint", "artifact": TEACHER, "architecture": {"kind": "cnn", "channels": [4]}}
    spec = lesson.spec(teacher=teacher, student=STUDENT, training={"epochs": 2, "precision": "float32"}, control=False)
    reference = everything(lesson.train(spec))
    job, stops = lesson.train_with_stops(spec, every=5)
    assert stops > 0
    weights = everything(job)
    assert weights.keys() == reference.keys()
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, reference[name])] == []
