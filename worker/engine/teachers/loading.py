"""From a teacher's section of the spec to a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.contract.spec import CheckpointTeacher, EnsembleTeacher, OnnxTeacher, SoftLabelsTeacher
from worker.engine.data import Dataset
from worker.engine.teachers.ensemble import join
from worker.engine.teachers.from_checkpoint import load_checkpoint_teacher
from worker.engine.teachers.from_onnx import load_onnx
from worker.engine.teachers.given import given_teacher
from worker.engine.teachers.teacher import Teacher

Loadable = CheckpointTeacher | OnnxTeacher | SoftLabelsTeacher | EnsembleTeacher


@dataclass(frozen=True)
class Loading:
    """What every kind of teacher is loaded with."""

    inputs: Mapping[str, Path]
    dataset: Dataset
    num_classes: int | None  # as the spec's data section tells it
    device: str
    is_classification: bool
    remarks: list[str] = field(default_factory=list)  # what reading the files showed


def load_teacher(spec: Loadable, loading: Loading, param: str = "/teacher") -> Teacher:
    """The teacher. Raises the StillhouseError that fits when it cannot teach on these data."""
    if isinstance(spec, CheckpointTeacher):
        found = load_checkpoint_teacher(
            spec, loading.inputs, loading.dataset, num_classes=loading.num_classes, device=loading.device, param=param,
            is_classification=loading.is_classification,
        )
        loading.remarks.extend(found.remarks)
        return found
    if isinstance(spec, OnnxTeacher):
        return load_onnx(
            spec, loading.inputs, loading.dataset, param, is_classification=loading.is_classification
        )
    if isinstance(spec, SoftLabelsTeacher):
        return given_teacher(spec, loading.dataset, loading.num_classes, param)
    members = [
        load_teacher(member.teacher, loading, f"{param}/members/{place}/teacher")
        for place, member in enumerate(spec.members)
    ]
    return join(members, [member.weight for member in spec.members], spec.average, param)
