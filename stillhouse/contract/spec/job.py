"""The job spec: what a client asks for. Only teacher, student and data are required."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import ArtifactId, Place, Section, told_at
from stillhouse.contract.spec.data import Data, Split, label_kind
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.objective import Objective, misfits
from stillhouse.contract.spec.recipe import Recipe, RecipeName, recipe_of, recipes_for
from stillhouse.contract.spec.soft_labels import AutoSoftLabels, SoftLabels, ViewedSoftLabels
from stillhouse.contract.spec.student import DerivedStudent, Layers, Student
from stillhouse.contract.spec.task import Classification, Task
from stillhouse.contract.spec.teacher import CheckpointTeacher, EnsembleTeacher, OnnxTeacher, Teacher, TrainTeacher
from stillhouse.contract.spec.training import Training

LabelKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, Field(max_length=512)]
MAX_LABELS = 16
JobName = Annotated[str, Field(min_length=1, max_length=128)]
Priority = Annotated[int, Field(
    ge=-10, le=10,
    description="Of the queued jobs of owners who have as many running, the highest goes first. Whoever has fewer "
    "running goes before, whatever the priority.",
)]

# Kinds of teacher that are a torch module whose architecture is known.
_TAKEN_APART = ("checkpoint", "train")
# Of one job: they are all in one machine.
MAX_DEVICES = 64
# A year, in seconds.
MAX_RUNTIME = 366 * 86_400


class JobSpec(Section):
    """A distillation job."""

    version: Literal[1] = Field(default=1, description="Version of this schema.")
    name: JobName | None = Field(default=None, description="A name for people.")
    labels: dict[LabelKey, LabelValue] = Field(
        default={}, max_length=MAX_LABELS, description="Key-value pairs to find the job by."
    )
    priority: Priority = 0
    teacher: Teacher = Field(description="Where the soft labels come from.")
    student: Student = Field(description="What the teacher is distilled into.")
    initial_weights: ArtifactId | None = Field(
        default=None,
        description="Checkpoint that the student begins with: safetensors or a PyTorch zip of its very architecture. "
        "Random weights, or the teacher's where it is derived from it, when left out.",
    )
    data: Data = Field(description="Where the samples are and how to read them.")
    task: Task = Field(default=Classification(), description="What the models are for.")
    recipe: Literal["auto", RecipeName] = Field(
        default="auto",
        description="Objective and training where the spec does not give them, as `GET /recipes` lists them. `auto` "
        "takes the task's usual one. `objective`, each field of `training`, and `soft_labels` replace the recipe's.",
    )
    objective: Objective | None = Field(
        default=None,
        description="What the student minimises: the recipe's when left out. Of `auto` that is, of classification: "
        "`kl` at temperature 2 plus half of `cross_entropy`; of multi_label: `bce` at temperature 1 plus half of "
        "`binary_cross_entropy`; of regression: `mse` plus half of `squared_error`; of embedding: `mse` plus `cosine`. "
        "A recipe's terms of labels are left out on unlabelled data.",
    )
    training: Training = Field(
        default=Training(),
        description="How the student is trained. A field that is left out is the recipe's; `auto` takes the defaults "
        "told here. A given optimizer, schedule or augmentation replaces the recipe's as a whole.",
    )
    soft_labels: SoftLabels = Field(
        default=AutoSoftLabels(),
        description="When the teacher is asked: once for each sample or view, which jobs share, or at every step. The "
        "recipe's when left out, if it has an own.",
    )
    control: bool = Field(
        default=True,
        description="Train the same student on the labels without the teacher as well, so that the report can tell "
        "what distillation gained. Needs labels, which an embedding has none of; about doubles the training time.",
    )
    export: Export = Field(default=Export(), description="What comes out.")
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Seed of the initial weights, the order of samples and dropout."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Kind of worker the job waits for; `auto` takes the service's default."
    )
    devices: int = Field(
        default=1, ge=1, le=MAX_DEVICES,
        description="How many devices of one worker train together, each on its share of every batch: GPUs, or on cpu "
        "as many processes. Must divide the batch size. The job waits for a worker that has so many free at once.",
    )
    max_runtime: float | None = Field(
        default=None, gt=0, le=MAX_RUNTIME,
        description="Seconds that the job may run, all its attempts together, each from the moment when a worker took "
        "it. Time in the queue or paused does not count. The service may have a limit of its own.",
    )
    on_max_runtime: Literal["fail", "keep_best"] = Field(
        default="fail",
        description="What becomes of the job then. `fail`: it ends with `max_runtime_exceeded`. `keep_best`: the best "
        "student so far is evaluated and exported, for as long as that takes, and the job ends `succeeded` with a "
        "report that says where training stopped; it fails where there was nothing to keep yet.",
    )

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        told_at(self._unfit_recipe())
        unfit = [
            *self._unfit_terms(), *self._unfit_mixing(), *self._unfit_metrics(), *self._unfit_widths(),
            *self._unfit_teacher(), *self._unfit_views(), *self._unfit_devices(),
        ]
        told_at((self.sent_place(place), told) for place, told in unfit)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        unfit = [*self._unlabelled_uses(), *self._unbalanced_draws(), *self._underivable()]
        told_at((self.sent_place(place), told) for place, told in unfit)
        return self

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels to learn from."""
        return self.reads_labels_of(self.data.train)

    @property
    def has_validation_labels(self) -> bool:
        """Whether the split that selects has labels."""
        return self.reads_labels_of(self.data.validation or self.data.train)

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe, which `auto` leaves to the task."""
        return recipe_of(self.recipe, self.task.kind)

    @property
    def effective_objective(self) -> Objective:
        """The objective that is trained: as given, else the recipe's for these data."""
        return self.objective or self.chosen_recipe.objective_for(is_labelled=self.is_labelled)

    @property
    def effective_training(self) -> Training:
        """How the student is trained: each field as given, else the recipe's."""
        return self.chosen_recipe.completed(self.training)

    @property
    def effective_soft_labels(self) -> SoftLabels:
        """When the teacher is asked: as given, else as the recipe has it."""
        own = None if "soft_labels" in self.model_fields_set else self.chosen_recipe.soft_labels
        return own or self.soft_labels

    @property
    def overrides(self) -> list[str]:
        """JSON pointers of what the spec gives itself of what a recipe settles."""
        training = [f"/training/{name}" for name in Training.model_fields if name in self.training.model_fields_set]
        whole = {"/objective": self.objective is not None, "/soft_labels": "soft_labels" in self.model_fields_set}
        return [*(pointer for pointer, is_given in whole.items() if is_given), *training]

    def sent_place(self, place: Place) -> Place:
        """Where a mistake at this place is to be mended: there, or at the recipe that filled it in."""
        return ("recipe",) if self._is_filled_in(*place[:2]) else place

    def sent_pointer(self, pointer: str) -> str:
        """The same of a JSON pointer."""
        return "/recipe" if self._is_filled_in(*pointer.split("/")[1:3]) else pointer

    def _is_filled_in(self, section: str | int = "", name: str | int = "") -> bool:
        if section == "objective":
            return self.objective is None
        if section == "training":
            return name in self.chosen_recipe.training.model_fields_set - self.training.model_fields_set
        return section == "soft_labels" and self.effective_soft_labels is not self.soft_labels

    @property
    def trains_control(self) -> bool:
        """Whether the same student is also trained without the teacher."""
        return self.control and self.is_labelled

    def reads_labels_of(self, split: Split) -> bool:
        """Whether the labels of a split are read, which an embedding's never are."""
        return self.task.reads_labels and split.is_labelled

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Each split that is given, with its name, as the task reads it."""
        for name in ("train", "validation", "test"):
            split: Split | None = getattr(self.data, name)
            if split is not None:
                yield name, split if self.task.reads_labels else split.unlabelled()

    def artifacts(self) -> dict[str, str]:
        """Every artifact that the job reads: JSON pointer of the field -> id of the artifact."""
        found = dict(_teacher_artifacts(self.teacher, "/teacher"))
        if self.initial_weights:
            found["/initial_weights"] = self.initial_weights
        for name, split in self.splits():
            found |= {f"/data/{name}/{place}": artifact for place, artifact in split.pointers().items()}
        return found

    def _unlabelled_uses(self) -> Iterator[tuple[Place, str]]:
        """What reads labels that are not there."""
        if self.is_labelled:
            return
        why = "data.train has no labels" if self.task.reads_labels else f"{self.task.kind} reads no labels"
        for place, term in enumerate(self.effective_objective.terms):
            if term.needs_labels and term.weight > 0:
                yield ("objective", "terms", place), f"{term.kind} reads labels, but {why}; leave it out"
        if self.teacher.kind == "train":
            yield ("teacher", "kind"), "a teacher of kind train learns from labels, but data.train has none"
        chosen = self.effective_training.selection_metric
        if self.task.reads_labels and chosen == self.task.quality and not self.has_validation_labels:
            yield ("training", "selection_metric"), (
                f"{chosen} is told against labels, but the validation split has none; use agreement"
            )

    def _unbalanced_draws(self) -> Iterator[tuple[Place, str]]:
        """Sampling by class where there is none."""
        if self.is_labelled and label_kind(self.task.kind) == "classes":
            return
        why = "data.train has no labels" if not self.is_labelled else "this task has no single class per sample"
        for place, training in self._trainings():
            if training.balanced_sampling:
                yield (*place, "balanced_sampling"), f"balanced_sampling draws by class, but {why}; set it to false"

    def _underivable(self) -> Iterator[tuple[Place, str]]:
        """Students made from a teacher that cannot be taken apart, or that begin twice."""
        if not isinstance(self.student, DerivedStudent):
            return
        if self.teacher.kind not in _TAKEN_APART:
            yield ("student", "kind"), (
                f"a student of kind {self.student.kind} is made from the teacher's own layers, and a teacher of kind "
                f"{self.teacher.kind} shows none; give a teacher of kind {' or '.join(_TAKEN_APART)}, or a student by "
                "name"
            )
        if self.initial_weights and not (isinstance(self.student, Layers) and not self.student.initialize):
            yield ("initial_weights",), (
                f"a student of kind {self.student.kind} begins with the teacher's weights; leave initial_weights out"
                + (", or set student.initialize to false" if isinstance(self.student, Layers) else "")
            )

    def _trainings(self) -> Iterator[tuple[Place, Training]]:
        """Every training of the job, with its place."""
        yield ("training",), self.effective_training
        if isinstance(self.teacher, TrainTeacher):
            yield ("teacher", "training"), self.teacher.training

    def _unfit_recipe(self) -> Iterator[tuple[Place, str]]:
        recipe, kind = self.chosen_recipe, self.task.kind
        if kind not in recipe.tasks:
            others = ", ".join(recipes_for(kind))
            yield ("recipe",), (
                f"{recipe.name} is a recipe for {' and '.join(recipe.tasks)}, not for {kind}; use auto or {others}"
            )

    def _unfit_terms(self) -> Iterator[tuple[Place, str]]:
        for place, told in misfits(self.effective_objective, self.task.kind):
            yield ("objective", "terms", place), told

    def _unfit_mixing(self) -> Iterator[tuple[Place, str]]:
        """Mixup and cutmix give a sample shares of several classes."""
        augmentation = self.effective_training.augmentation
        if augmentation is None or not augmentation.mixes:
            return
        for place, term in enumerate(self.effective_objective.terms):
            if term.needs_true_class and term.weight > 0:
                yield ("objective", "terms", place), (
                    f"{term.kind} needs one true class per sample, and mixup and cutmix blend two; leave one out"
                )
        teachers = self.teacher.members if isinstance(self.teacher, EnsembleTeacher) else ()
        if self.teacher.kind == "soft_labels" or any(member.teacher.kind == "soft_labels" for member in teachers):
            yield ("training", "augmentation"), (
                "soft labels that come with the data say nothing of blended images; leave mixup and cutmix out"
            )

    def _unfit_metrics(self) -> Iterator[tuple[Place, str]]:
        quality = self.task.quality
        for place, training in self._trainings():
            metric = training.selection_metric
            if metric not in {"auto", "agreement", "loss", quality}:
                usable = f"{quality}, agreement or loss" if place == ("training",) else f"{quality} or loss"
                yield (*place, "selection_metric"), f"{metric} is no score of {self.task.kind}; use {usable}"

    def _unfit_widths(self) -> Iterator[tuple[Place, str]]:
        """One class alone, and names where nothing is named."""
        names = self.data.label_names
        if self.task.kind == "embedding" and names:
            yield ("data", "label_names"), "the dimensions of an embedding have no names; leave label_names out"
        if self.task.kind != "classification":
            return
        widths: dict[Place, int | None] = {
            ("data", "num_classes"): self.data.num_classes,
            ("data", "label_names"): len(names) if names else None,
            ("student", "num_classes"): getattr(self.student, "num_classes", None),
        }
        if isinstance(self.teacher, TrainTeacher):
            widths["teacher", "architecture", "num_classes"] = self.teacher.architecture.num_classes
        for place, width in widths.items():
            if width == 1:
                yield place, "one class alone is nothing to choose from; for one yes-or-no label use task multi_label"

    def _unfit_teacher(self) -> Iterator[tuple[Place, str]]:
        if not isinstance(self.teacher, TrainTeacher):
            return
        if self.task.kind == "embedding":
            yield ("teacher", "kind"), (
                "a teacher of kind train learns from labels, which an embedding has none of; give a checkpoint"
            )
        if self.task.kind != "classification" and self.teacher.label_smoothing:
            yield ("teacher", "label_smoothing"), f"label smoothing is for classification, not for {self.task.kind}"

    def _unfit_views(self) -> Iterator[tuple[Place, str]]:
        """Stored views that could not serve."""
        chosen, objective = self.effective_soft_labels, self.effective_objective
        if not isinstance(chosen, ViewedSoftLabels):
            return
        if objective.needs_features:
            yield ("soft_labels",), (
                "terms of the objective look at the teacher's layers, which no store holds; use kind online, or leave "
                "those terms out"
            )
        if not objective.needs_teacher:
            yield ("soft_labels",), (
                "no term of the objective asks the teacher; leave soft_labels out, or add a term such as kl"
            )
        if self.effective_training.augmentation is None and chosen.views > 1:
            yield ("soft_labels",), (
                "without training.augmentation all views of a sample are the same; give views 1, or an augmentation"
            )

    def _unfit_devices(self) -> Iterator[tuple[Place, str]]:
        trainings = {"training": self.effective_training}
        if isinstance(self.teacher, TrainTeacher):
            trainings["teacher.training"] = self.teacher.training
        for section, training in trainings.items():
            if training.batch_size % self.devices:
                yield ("devices",), (
                    f"a batch of {training.batch_size} samples cannot be shared evenly among {self.devices} devices; "
                    f"give a {section}.batch_size that is a multiple of {self.devices}, or other devices"
                )


def _teacher_artifacts(teacher: Teacher, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(teacher, CheckpointTeacher | OnnxTeacher):
        yield f"{pointer}/artifact", teacher.artifact
    if isinstance(teacher, EnsembleTeacher):
        for place, member in enumerate(teacher.members):
            yield from _teacher_artifacts(member.teacher, f"{pointer}/members/{place}/teacher")
