"""Recipes: terms and training settings that belong together, by name. What a spec gives itself replaces its part."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stillhouse.contract.spec.augmentation import Affine, Augmentation
from stillhouse.contract.spec.logit_terms import Kl
from stillhouse.contract.spec.objective import Objective, usual_objective
from stillhouse.contract.spec.soft_labels import SoftLabels, ViewedSoftLabels
from stillhouse.contract.spec.term import TaskKind
from stillhouse.contract.spec.training import AdamW, Training

RecipeName = Literal["classification", "multi_label", "regression", "embedding", "hinton2015", "augmented_views"]


class Claim(NamedTuple):
    """A benchmark of this project that tells what a recipe does, once it was run."""

    benchmark: str  # module of benchmarks/; its results are benchmarks/results/NAME.json
    what: str  # what was measured, on what
    figures: Mapping[str, str]  # what it is and in which unit -> its key in the results
    # Key of the sections that were trained: objective, training and, where it is the recipe's, soft_labels. Keys of
    # objects are joined by dots. Results of other settings are no evidence.
    settings: str


@dataclass(frozen=True)
class Recipe:
    """What a job trains where its spec does not say."""

    name: RecipeName
    tasks: Sequence[TaskKind]
    when: str  # when to use it, one sentence
    objective: Objective  # of labelled data
    training: Training = field(default_factory=Training)  # only the fields that were given are the recipe's
    soft_labels: SoftLabels | None = None  # None leaves them to the spec
    claims: Sequence[Claim] = ()

    def objective_for(self, *, is_labelled: bool) -> Objective:
        """The objective; on unlabelled data without the terms that need labels."""
        if is_labelled:
            return self.objective
        return Objective(terms=[term for term in self.objective.terms if not term.needs_labels])

    def completed(self, training: Training) -> Training:
        """The training with each field that it was not given as this recipe has it; a section is one field."""
        own = self.training.model_fields_set - training.model_fields_set
        return training.model_copy(update={name: getattr(self.training, name) for name in own}) if own else training


_MNIST = (
    "MNIST, 784-800-800-10 taught by 784-1200-1200-10, in bfloat16; errors among the 10,000 test images after the last "
    "epoch"
)
_ALONE = {
    "errors of the same student alone, not augmented": "student_alone", "errors of the teacher": "teacher_errors",
}

_USUAL = (
    Recipe(
        name="classification",
        tasks=["classification"],
        when="One class per sample: the first thing to try.",
        objective=usual_objective("classification", is_labelled=True),
        claims=[Claim(
            "mnist_gain",
            "MNIST, 784-64-10 taught by a convolutional network; accuracy on the 10,000 test images at the step that "
            "the validation split selected, paired by seed",
            {
                "accuracy, distilled": "distilled", "accuracy of the same student alone": "control",
                "accuracy of the teacher": "teacher", "mean gain in percentage points": "mean_gain",
                "standard error of the gain": "standard_error",
            },
            settings="recipe",
        )],
    ),
    Recipe(
        name="multi_label",
        tasks=["multi_label"],
        when="Any number of labels per sample: each one a question of its own, with the teacher's probability of it.",
        objective=usual_objective("multi_label", is_labelled=True),
    ),
    Recipe(
        name="regression",
        tasks=["regression"],
        when="Numbers per sample: the teacher's values, and half as much the true ones.",
        objective=usual_objective("regression", is_labelled=True),
    ),
    Recipe(
        name="embedding",
        tasks=["embedding"],
        when="Vectors that are to lie where the teacher's lie, by distance and by direction.",
        objective=usual_objective("embedding", is_labelled=True),
    ),
)
# As benchmarks.hinton trains a student.
_LONG = Training(epochs=40, batch_size=256, optimizer=AdamW(learning_rate=2e-3))
_MNIST_LIKE = (
    Recipe(
        name="hinton2015",
        tasks=["classification"],
        when="A student with hundreds of units per layer, on data that is not augmented: the teacher's very soft "
        "answers alone, and a longer training. Hinton et al. (2015) took T = 20 on MNIST; from 300 units on, every T "
        "above 8 did alike.",
        objective=Objective(terms=[Kl(temperature=20.0)]),
        training=_LONG,
        claims=[Claim(
            "hinton", _MNIST, {"errors, distilled": "student_distilled_clean", **_ALONE}, settings="recipes.clean",
        )],
    ),
    Recipe(
        name="augmented_views",
        tasks=["classification"],
        when="Small centred images such as digits, whose meaning a small turn, move or lean does not change: the "
        "teacher is asked once about each of eight such views of a sample. Best where it learned from such views too.",
        objective=Objective(terms=[Kl(temperature=4.0)]),
        training=_LONG.model_copy(update={"augmentation": Augmentation(transforms=[Affine(translation=2 / 28)])}),
        soft_labels=ViewedSoftLabels(views=8),
        claims=[Claim(
            "hinton", _MNIST, {"errors, distilled": "student_distilled_views", **_ALONE}, settings="recipes.views",
        )],
    ),
)
RECIPES: Mapping[RecipeName, Recipe] = {recipe.name: recipe for recipe in (*_USUAL, *_MNIST_LIKE)}
# What `auto` takes.
CHOICES: Mapping[TaskKind, RecipeName] = {
    "classification": "classification", "multi_label": "multi_label", "regression": "regression",
    "embedding": "embedding",
}


def recipe_of(name: RecipeName | Literal["auto"], task: TaskKind) -> Recipe:
    """The recipe of that name; `auto` chooses by the task."""
    return RECIPES[CHOICES[task] if name == "auto" else name]


def recipes_for(task: TaskKind) -> Iterator[RecipeName]:
    """Names of the recipes for a task."""
    return (name for name, recipe in RECIPES.items() if task in recipe.tasks)
