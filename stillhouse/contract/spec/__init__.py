"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import Architecture, Cnn, Mlp
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Data, IdxData, IdxSplit, Normalization, NpzData, NpzSplit, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.feature_terms import CosineDistance
from stillhouse.contract.spec.job import JobSpec
from stillhouse.contract.spec.logit_terms import Bce, BinaryCrossEntropy, CrossEntropy, Kl, Mse, SquaredError
from stillhouse.contract.spec.objective import Objective, Term, misfits, usual_objective
from stillhouse.contract.spec.student import Student
from stillhouse.contract.spec.task import Classification, Embedding, MultiLabel, Regression, Task
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
    "Adam", "AdamW", "Architecture", "ArtifactId", "Augmentation", "Bce", "BinaryCrossEntropy", "CheckpointTeacher",
    "Classification", "Cnn", "Constant", "Cosine", "CosineDistance", "CrossEntropy", "Data", "EarlyStopping",
    "Embedding", "Export", "Flip", "IdxData", "IdxSplit", "JobSpec", "Kl", "LayerPair", "Mlp", "Mse", "MultiLabel",
    "Normalization", "NpzData", "NpzSplit", "Objective", "OneCycle", "Optimizer", "Regression", "Schedule", "Section",
    "Sgd", "Shift", "Split", "SquaredError", "Step", "Student", "Task", "Teacher", "Term", "TrainTeacher", "Training",
    "Transform", "misfits", "usual_objective",
]
