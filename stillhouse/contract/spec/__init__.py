"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import Architecture, Cnn, Mlp
from stillhouse.contract.spec.augmentation import (
    Affine,
    Augmentation,
    Crop,
    Cutmix,
    Erasing,
    Flip,
    Jitter,
    Mixup,
    Noise,
    RandomAugment,
    ResizedCrop,
    Rotate,
    Shift,
    Transform,
    check_augmentation,
)
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Data, IdxData, IdxSplit, Normalization, NpzData, NpzSplit, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.job import JobSpec
from stillhouse.contract.spec.logit_terms import CrossEntropy, Kl, Mse
from stillhouse.contract.spec.objective import Objective, Term, usual_objective
from stillhouse.contract.spec.student import Student
from stillhouse.contract.spec.task import ImageClassification, TabularClassification, Task
from stillhouse.contract.spec.teacher import CheckpointTeacher, Teacher, TrainTeacher
from stillhouse.contract.spec.term import LayerPair
from stillhouse.contract.spec.training import (
    Adam,
    AdamW,
    Constant,
    Cosine,
    EarlyStopping,
    OneCycle,
    Optimizer,
    Schedule,
    Sgd,
    Step,
    Training,
)

__all__ = [
    "Adam", "AdamW", "Affine", "Architecture", "ArtifactId", "Augmentation", "CheckpointTeacher", "Cnn", "Constant",
    "Cosine", "Crop", "CrossEntropy", "Cutmix", "Data", "EarlyStopping", "Erasing", "Export", "Flip", "IdxData",
    "IdxSplit", "ImageClassification", "Jitter", "JobSpec", "Kl", "LayerPair", "Mixup", "Mlp", "Mse", "Noise",
    "Normalization", "NpzData", "NpzSplit", "Objective", "OneCycle", "Optimizer", "RandomAugment", "ResizedCrop",
    "Rotate", "Schedule", "Section", "Sgd", "Shift", "Split", "Step", "Student", "TabularClassification", "Task",
    "Teacher", "Term", "TrainTeacher", "Training", "Transform", "check_augmentation", "usual_objective",
]
