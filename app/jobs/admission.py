"""What a spec and the headers of its artifacts can tell before anything runs.

Preflight, on the worker, checks again with the data itself; what is wrong here would only waste a place in the queue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from app.artifacts.inspection.facts import ArrayFacts, NpzFacts, OnnxFacts, SafetensorsFacts
from app.jobs.spec_reading import nearest_name
from stillhouse.contract.failures import (
    EmptyDataError,
    InputShapeMismatchError,
    InvalidSpecError,
    LabelCountMismatchError,
    OutputWidthMismatchError,
    UnknownArchitectureError,
    UnknownArrayError,
    UnknownArtifactError,
    UnusableArrayError,
    WrongArtifactKindError,
)
from stillhouse.contract.spec import (
    Architecture,
    CheckpointTeacher,
    EnsembleTeacher,
    JobSpec,
    Normalization,
    NpzSplit,
    OnnxTeacher,
    Split,
    Teacher,
    TrainTeacher,
)
from stillhouse.contract.spec.augmentation import check_augmentation

LABEL_DTYPES = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
INPUT_DTYPES = LABEL_DTYPES | {"bool", "float16", "float32", "float64"}
# Of labels by task: types, numbers of axes, and what they should be.
_LABELS: Mapping[str, tuple[frozenset[str], tuple[int, ...], str]] = {
    "classification": (
        LABEL_DTYPES, (1,),
        (
            "Labels are one integer per sample, unless task.kind is multi_label (a row of 0 and 1 per sample) or "
            "regression (numbers)"
        ),
    ),
    "multi_label": (INPUT_DTYPES, (2,), "Labels are a row of 0 and 1 per sample, one column for each label"),
    "regression": (INPUT_DTYPES - {"bool"}, (1, 2), "Targets are numbers, one or a row of them per sample"),
}
# Number of axes -> axes of an image, by the layout that reads them so.
_IMAGE_AXES = {"hw": 3, "hwc": 4, "chw": 4}
_CHANNEL_COUNTS = (1, 3, 4)
_TABLE_AXES = 2


class Stored(Protocol):
    """An artifact's row, as far as admission looks."""

    @property
    def kind(self) -> str:
        """What it is for."""

    @property
    def format(self) -> str:
        """How it is written."""

    @property
    def facts(self) -> dict[str, Any]:
        """What its header told at upload."""


@dataclass(frozen=True)
class _Network:
    """An architecture of the spec, and where the spec names it."""

    pointer: str
    architecture: Architecture

    def field(self, name: str) -> str:
        """Pointer of a field; a checkpoint that tells its own architecture is to blame as a whole."""
        return self.pointer if self.pointer.endswith("/artifact") else f"{self.pointer}/{name}"


def check(spec: JobSpec, stored: Mapping[str, Stored]) -> None:
    """Raise the failure that names what cannot work. `stored` holds the owner's artifacts by id."""
    for pointer, artifact_id in spec.artifacts().items():
        _check_artifact(spec, pointer, artifact_id, stored)
    shapes = {name: _split_shape(spec, name, split, stored) for name, split in spec.splits()}
    shape = shapes["train"]
    for name, other in shapes.items():
        if other != shape:
            raise InputShapeMismatchError(
                f"Inputs of {name} have shape {other}, those of train {shape}.", param=f"/data/{name}/inputs"
            )
    for pointer, teacher in _teachers(spec):
        if isinstance(teacher, OnnxTeacher):
            _check_onnx(pointer, teacher, stored)
    networks = list(_networks(spec, stored))
    for network in networks:
        _check_input(network, shape)
    _check_widths(spec, networks, stored)
    _check_augmentation(spec, shape)
    _check_normalizations(spec, shape)


def _check_artifact(spec: JobSpec, pointer: str, artifact_id: str, stored: Mapping[str, Stored]) -> None:
    artifact = stored.get(artifact_id)
    if artifact is None:
        raise UnknownArtifactError(
            f"No artifact of yours has the id {artifact_id}; upload the file first.", param=pointer
        )
    kind, formats = _wanted(spec, pointer)
    if artifact.kind != kind or artifact.format not in formats:
        raise WrongArtifactKindError(
            f"{artifact_id} is a {artifact.kind} in format {artifact.format}; this field needs a {kind} in format "
            f"{' or '.join(formats)}.", param=pointer,
        )


def _wanted(spec: JobSpec, pointer: str) -> tuple[str, Sequence[str]]:
    """Kind and formats that a field takes."""
    teacher = dict(_teachers(spec)).get(pointer.removesuffix("/artifact"))
    if teacher is None:
        return "data", [spec.data.kind]
    return "teacher", ["onnx"] if isinstance(teacher, OnnxTeacher) else ["safetensors"]


def _teachers(spec: JobSpec) -> Iterator[tuple[str, Teacher]]:
    """Every single teacher with its pointer: the members of an ensemble, or the one."""
    if not isinstance(spec.teacher, EnsembleTeacher):
        yield "/teacher", spec.teacher
        return
    for place, member in enumerate(spec.teacher.members):
        yield f"/teacher/members/{place}/teacher", member.teacher


def _split_shape(spec: JobSpec, name: str, split: Split, stored: Mapping[str, Stored]) -> list[int]:
    """Shape of one input of a split as models see it, once inputs and labels were found usable."""
    inputs = _array(split, "inputs", f"/data/{name}/inputs", stored)
    _check_inputs(inputs, f"/data/{name}/inputs")
    if spec.reads_labels_of(split):
        labels = _array(split, "labels", f"/data/{name}/labels", stored)
        _check_labels(labels, inputs, spec.task.kind, f"/data/{name}/labels")
    return _input_shape(inputs.shape[1:], spec.data.layout, f"/data/{name}/inputs")


def _array(split: Split, role: str, pointer: str, stored: Mapping[str, Stored]) -> ArrayFacts:
    field: str = getattr(split, role)
    if not isinstance(split, NpzSplit):
        return ArrayFacts.model_validate(stored[field].facts)
    arrays = NpzFacts.model_validate(stored[split.artifact].facts).arrays
    if field not in arrays:
        nearest = nearest_name(field, arrays)
        hint = f"did you mean `{nearest}`?" if nearest else f"it has {', '.join(sorted(arrays)[:20])}."
        raise UnknownArrayError(f"The NPZ file has no array `{field}`; {hint}", param=pointer)
    return arrays[field]


def _check_inputs(inputs: ArrayFacts, pointer: str) -> None:
    if inputs.dtype not in INPUT_DTYPES:
        raise UnusableArrayError(f"Inputs of type {inputs.dtype} cannot be used; give plain numbers.", param=pointer)
    if not _TABLE_AXES <= len(inputs.shape) <= max(_IMAGE_AXES.values()):
        raise UnusableArrayError(
            f"Inputs have shape {inputs.shape}; a table has 2 axes, images have 3 or 4, samples first.", param=pointer
        )
    if prod(inputs.shape) == 0:
        raise EmptyDataError(f"The array has shape {inputs.shape}: no samples.", param=pointer)


def _check_labels(labels: ArrayFacts, inputs: ArrayFacts, task: str, pointer: str) -> None:
    types, axes, wanted = _LABELS[task]
    if labels.dtype not in types or len(labels.shape) not in axes or 0 in labels.shape[1:]:
        raise UnusableArrayError(
            f"{wanted}, but this array is {labels.dtype} of shape {labels.shape}.", param=pointer
        )
    if labels.shape[0] != inputs.shape[0]:
        raise LabelCountMismatchError(f"{labels.shape[0]} labels for {inputs.shape[0]} inputs.", param=pointer)


def _input_shape(axes: Sequence[int], layout: str, pointer: str) -> list[int]:
    """[channels, height, width] of an image, [columns] of a row."""
    if len(axes) == 1:
        return list(axes)
    if layout == "auto":
        layout = "hw" if len(axes) == 2 else "hwc" if axes[-1] in _CHANNEL_COUNTS else "chw"  # noqa: PLR2004 - an image's
    if _IMAGE_AXES[layout] != len(axes) + 1:
        raise UnusableArrayError(
            f"Layout {layout} needs {_IMAGE_AXES[layout]} axes, samples first, but inputs have {len(axes) + 1}.",
            param=pointer,
        )
    if layout == "hw":
        return [1, *axes]
    return [axes[2], axes[0], axes[1]] if layout == "hwc" else list(axes)


def _networks(spec: JobSpec, stored: Mapping[str, Stored]) -> Iterator[_Network]:
    for pointer, teacher in _teachers(spec):
        if isinstance(teacher, TrainTeacher):
            yield _Network(f"{pointer}/architecture", teacher.architecture)
        elif isinstance(teacher, CheckpointTeacher):
            yield _checkpoint(pointer, teacher, stored)
    yield _Network("/student", spec.student)


def _checkpoint(pointer: str, teacher: CheckpointTeacher, stored: Mapping[str, Stored]) -> _Network:
    if teacher.architecture is not None:
        return _Network(f"{pointer}/architecture", teacher.architecture)
    facts = SafetensorsFacts.model_validate(stored[teacher.artifact].facts)
    if facts.architecture is None:
        why = f" ({facts.architecture_problem})" if facts.architecture_problem else ""
        raise UnknownArchitectureError(
            f"The checkpoint does not tell its architecture{why}; give teacher.architecture.",
            param=f"{pointer}/architecture",
        )
    return _Network(f"{pointer}/artifact", facts.architecture)


def _check_onnx(pointer: str, teacher: OnnxTeacher, stored: Mapping[str, Stored]) -> None:
    """Raise what fits where the model's declared inputs and outputs are not those that the spec names."""
    facts = OnnxFacts.model_validate(stored[teacher.artifact].facts)
    if teacher.output is not None and teacher.output not in facts.outputs:
        raise InvalidSpecError(
            f"The model has no output `{teacher.output}`; it has {', '.join(facts.outputs)}.", param=f"{pointer}/output"
        )
    unknown = sorted(set(teacher.columns or {}) - set(facts.inputs))
    if unknown:
        raise InvalidSpecError(
            f"The model has no input `{unknown[0]}`; it has {', '.join(facts.inputs)}.", param=f"{pointer}/columns"
        )
    texts = [name for name, value in facts.inputs.items() if value.dtype == "string"]
    if texts:
        raise InputShapeMismatchError(
            f"The model's input `{texts[0]}` takes text, and the data are numbers; export the model without the "
            "step that reads text.", param=f"{pointer}/artifact",
        )


def _check_input(network: _Network, shape: Sequence[int]) -> None:
    architecture = network.architecture
    if architecture.input_shape is not None and architecture.input_shape != list(shape):
        raise InputShapeMismatchError(
            f"The model takes inputs of shape {architecture.input_shape}, the data has {list(shape)}.",
            param=network.field("input_shape"),
        )
    if architecture.kind == "cnn" and len(shape) == 1:
        raise InputShapeMismatchError(
            "A cnn takes images, but the data is a table; use an mlp.", param=network.field("kind")
        )


def _check_widths(spec: JobSpec, networks: Sequence[_Network], stored: Mapping[str, Stored]) -> None:
    widths = {
        "/data/num_classes": spec.data.num_classes,
        "/data/label_names": len(spec.data.label_names) if spec.data.label_names else None,
        **{network.field("num_classes"): network.architecture.num_classes for network in networks},
        **dict(_label_widths(spec, stored)),
    }
    known = {pointer: width for pointer, width in widths.items() if width is not None}
    first, classes = next(iter(known.items()), ("", 0))
    for pointer, width in known.items():
        if width != classes:
            raise OutputWidthMismatchError(
                f"{width} outputs here, but {first} tells {classes} {spec.task.outputs}.", param=pointer
            )


def _label_widths(spec: JobSpec, stored: Mapping[str, Stored]) -> Iterator[tuple[str, int]]:
    """Columns of labels, where there is one for each output."""
    if spec.task.kind not in {"multi_label", "regression"}:
        return
    for name, split in spec.splits():
        if split.is_labelled:
            pointer = f"/data/{name}/labels"
            _, *width = _array(split, "labels", pointer, stored).shape
            yield pointer, width[0] if width else 1


def _check_augmentation(spec: JobSpec, shape: Sequence[int]) -> None:
    trainings = {"/training": spec.training}
    if spec.teacher.kind == "train":
        trainings["/teacher/training"] = spec.teacher.training
    for pointer, training in trainings.items():
        if training.augmentation is not None:
            check_augmentation(training.augmentation, shape, param=f"{pointer}/augmentation")


def _check_normalizations(spec: JobSpec, shape: Sequence[int]) -> None:
    given: dict[str, Normalization | None] = {"/data/normalization": spec.data.normalization}
    for pointer, teacher in _teachers(spec):
        if isinstance(teacher, CheckpointTeacher | OnnxTeacher):
            given[f"{pointer}/normalization"] = teacher.normalization
    for pointer, normalization in given.items():
        if normalization is not None and len(normalization.mean) not in {1, shape[0]}:
            raise InvalidSpecError(
                f"Normalisation has {len(normalization.mean)} values; inputs have {shape[0]} "
                f"{'columns' if len(shape) == 1 else 'channels'}. Give as many, or one for all.",
                param=f"{pointer}/mean",
            )
