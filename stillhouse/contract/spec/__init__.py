"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import Architecture, Cnn, Mlp
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Data, IdxData, IdxSplit, Normalization, NpzData, NpzSplit, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.job import JobSpec
from stillhouse.contract.spec.logit_terms import CrossEntropy, Kl, Mse
from stillhouse.contract.spec.objective import Objective, Term, usual_objective
from stillhouse.contract.spec.soft_labels import AutoSoftLabels, OnlineSoftLabels, SoftLabels, ViewedSoftLabels
from stillhouse.contract.spec.student import Student
from stillhouse.contract.spec.task import ImageClassification, TabularClassification, Task
from stillhouse.contract.spec.teacher import CheckpointTeacher, Teacher, TrainTeacher
from stillhouse.contract.spec.term import LayerPair
from stillhouse.contract.spec.training import (
    Adam,
    AdamW,
    Augmentation,
    Constant,
    Cosine,
    EarlyStopping,
    Flip,
    OneCycle,
    Optimizer,
    Schedule,
    Sgd,
    Shift,
    Step,
    Training,
    Transform,
)

__all__ = [
    "Adam", "AdamW", "Architecture", "ArtifactId", "Augmentation", "AutoSoftLabels", "CheckpointTeacher", "Cnn",
    "Constant", "Cosine", "CrossEntropy", "Data", "EarlyStopping", "Export", "Flip", "IdxData", "IdxSplit",
    "ImageClassification", "JobSpec", "Kl", "LayerPair", "Mlp", "Mse", "Normalization", "NpzData", "NpzSplit",
    "Objective", "OneCycle", "OnlineSoftLabels", "Optimizer", "Schedule", "Section", "Sgd", "Shift", "SoftLabels",
    "Split", "Step", "Student", "TabularClassification", "Task", "Teacher", "Term", "TrainTeacher", "Training",
    "Transform", "ViewedSoftLabels", "usual_objective",
]
