"""What a spec and the headers of its artifacts can tell before anything runs.

Preflight, on the worker, checks again with the data itself; what is wrong here would only waste a place in the queue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.artifacts.inspection.facts import OnnxFacts, SafetensorsFacts
from app.jobs.headers import Shape, Stored, agree, check_data, in_words, label_width
from stillhouse.contract.failures import (
    InputShapeMismatchError,
    InvalidSpecError,
    OutputWidthMismatchError,
    UnknownArchitectureError,
    UnknownArtifactError,
    WrongArtifactKindError,
)
from stillhouse.contract.recipes import told_where_sent
from stillhouse.contract.spec import (
    Architecture,
    CheckpointTeacher,
    DerivedStudent,
    EnsembleTeacher,
    JobSpec,
    Normalization,
    OnnxTeacher,
    Teacher,
    TrainTeacher,
    named_base,
    num_derivations,
)
from stillhouse.contract.spec.augmentation import check_augmentation

_WEIGHTS = ("safetensors", "pytorch")
# The last layer, where a tensor's name alone tells it.
_LAST_LAYERS = ("head.weight", "fc.weight", "head.fc.weight", "classifier.weight", "heads.head.weight")
_MATRIX_AXES = 2


@dataclass(frozen=True)
class _Network:
    """An architecture of the spec, and where the spec names it."""

    pointer: str
    architecture: Architecture

    def field(self, name: str) -> str:
        """Pointer of a field; a checkpoint that tells its own architecture is to blame as a whole."""
        if self.pointer.endswith("/artifact"):
            return self.pointer
        return f"{self.pointer}{'/base' * num_derivations(self.architecture)}/{name}"


def check(spec: JobSpec, stored: Mapping[str, Stored]) -> None:
    """Raise the failure that names what cannot work. `stored` holds the owner's artifacts by id."""
    with told_where_sent(spec):
        _check(spec, stored)


def _check(spec: JobSpec, stored: Mapping[str, Stored]) -> None:
    for pointer, artifact_id in spec.artifacts().items():
        _check_artifact(spec, pointer, artifact_id, stored)
    shape = check_data(spec, stored)
    for pointer, teacher in _teachers(spec):
        if isinstance(teacher, OnnxTeacher):
            _check_onnx(pointer, teacher, stored)
    networks = list(_networks(spec, stored))
    for network in networks:
        _check_input(network, shape)
    _check_widths(spec, networks, stored)
    _check_last_layer(spec, stored, networks)
    _check_augmentation(spec, shape)
    _check_normalizations(spec, shape)


def _check_artifact(spec: JobSpec, pointer: str, artifact_id: str, stored: Mapping[str, Stored]) -> None:
    artifact = stored.get(artifact_id)
    if artifact is None:
        raise UnknownArtifactError(
            f"No artifact of yours has the id {artifact_id}; upload the file first.", param=pointer
        )
    kinds, formats = _wanted(spec, pointer)
    if artifact.kind not in kinds or artifact.format not in formats:
        raise WrongArtifactKindError(
            f"{artifact_id} is a {artifact.kind} in format {artifact.format}; this field needs a {' or '.join(kinds)} "
            f"in format {' or '.join(formats)}.", param=pointer,
        )


def _wanted(spec: JobSpec, pointer: str) -> tuple[Sequence[str], Sequence[str]]:
    """Kinds and formats that a field takes. A student may begin with a student."""
    if pointer == "/initial_weights":
        return ("teacher", "model"), _WEIGHTS
    teacher = dict(_teachers(spec)).get(pointer.removesuffix("/artifact"))
    if teacher is None:
        return ("data",), (spec.data.kind,)
    return ("teacher",), ("onnx",) if isinstance(teacher, OnnxTeacher) else _WEIGHTS


def _field_name(pointer: str) -> str:
    """A pointer as people write it."""
    return pointer.strip("/").replace("/", ".")


def _teachers(spec: JobSpec) -> Iterator[tuple[str, Teacher]]:
    """Every single teacher with its pointer: the members of an ensemble, or the one."""
    if not isinstance(spec.teacher, EnsembleTeacher):
        yield "/teacher", spec.teacher
        return
    for place, member in enumerate(spec.teacher.members):
        yield f"/teacher/members/{place}/teacher", member.teacher


def _networks(spec: JobSpec, stored: Mapping[str, Stored]) -> Iterator[_Network]:
    for pointer, teacher in _teachers(spec):
        if isinstance(teacher, TrainTeacher):
            yield _Network(f"{pointer}/architecture", teacher.architecture)
        elif isinstance(teacher, CheckpointTeacher):
            yield _checkpoint(pointer, teacher, stored)
    if not isinstance(spec.student, DerivedStudent):
        yield _Network("/student", spec.student)


def _checkpoint(pointer: str, teacher: CheckpointTeacher, stored: Mapping[str, Stored]) -> _Network:
    if teacher.architecture is not None:
        return _Network(f"{pointer}/architecture", teacher.architecture)
    if stored[teacher.artifact].format == "pytorch":
        raise UnknownArchitectureError(
            f"A PyTorch checkpoint does not tell its architecture; give {_field_name(pointer)}.architecture.",
            param=f"{pointer}/architecture",
        )
    facts = SafetensorsFacts.model_validate(stored[teacher.artifact].facts)
    if facts.architecture is None:
        why = f" ({facts.architecture_problem})" if facts.architecture_problem else ""
        raise UnknownArchitectureError(
            f"The checkpoint does not tell its architecture{why}; give {_field_name(pointer)}.architecture.",
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


def _check_input(network: _Network, shape: Shape) -> None:
    architecture = network.architecture
    if architecture.input_shape is not None and not agree(architecture.input_shape, shape):
        raise InputShapeMismatchError(
            f"The model takes inputs of shape {architecture.input_shape}, the data has {in_words(shape)}.",
            param=network.field("input_shape"),
        )
    kind = named_base(architecture).kind
    if kind != "mlp" and shape is not None and len(shape) == 1:
        raise InputShapeMismatchError(
            f"A {kind} takes images, but the data is a table; use an mlp.", param=network.field("kind")
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
    """Columns of labels, where there is one for each output and a header tells how many there are."""
    if spec.task.kind not in {"multi_label", "regression"}:
        return
    for name, split in spec.splits():
        if split.is_labelled and (width := label_width(split, stored)) is not None:
            yield f"/data/{name}/labels", width


def _check_last_layer(spec: JobSpec, stored: Mapping[str, Stored], networks: Sequence[_Network]) -> None:
    """Compare the number of classes, where something tells it, with the last layer of the checkpoints that show one."""
    of_networks = [network.architecture.num_classes for network in networks]
    given = [spec.data.num_classes, len(spec.data.label_names or ()), *of_networks]
    classes = next((width for width in given if width), None)
    for pointer, artifact_id in spec.artifacts().items():
        artifact = None if pointer.startswith("/data/") else stored.get(artifact_id)
        width = None if artifact is None else _last_width(artifact)
        if classes and width and width != classes:
            raise OutputWidthMismatchError(
                f"The last layer of the checkpoint has {width} outputs, and the job has {classes} {spec.task.outputs}.",
                param=pointer,
            )


def _last_width(artifact: Stored) -> int | None:
    tensors = artifact.facts.get("tensors") or {}
    shapes = [tensors[name]["shape"] for name in _LAST_LAYERS if name in tensors]
    return shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == _MATRIX_AXES else None


def _check_augmentation(spec: JobSpec, shape: Shape) -> None:
    known = [length or 0 for length in shape or ()]
    if shape is None or (None in shape and len(shape) > 1):  # no header tells it: preflight looks
        return
    trainings = {"/training": spec.effective_training}
    if spec.teacher.kind == "train":
        trainings["/teacher/training"] = spec.teacher.training
    for pointer, training in trainings.items():
        if training.augmentation is not None:
            check_augmentation(training.augmentation, known, param=f"{pointer}/augmentation")


def _check_normalizations(spec: JobSpec, shape: Shape) -> None:
    if shape is None or shape[0] is None:
        return
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
