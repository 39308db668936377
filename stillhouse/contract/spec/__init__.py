"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import Architecture, Cnn, Mlp
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Data, IdxData, IdxSplit, Normalization, NpzData, NpzSplit, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.job import JobSpec
from stillhouse.contract.spec.logit_terms import (
    Bce,
    BinaryCrossEntropy,
    CrossEntropy,
    Dist,
    Dkd,
    Huber,
    Js,
    Kl,
    Mse,
    Nkd,
    ReverseKl,
    SquaredError,
    Ttm,
    Wttm,
)
from stillhouse.contract.spec.objective import Objective, Term, misfits, usual_objective, without_logits
from stillhouse.contract.spec.student import Student
from stillhouse.contract.spec.task import ImageClassification, TabularClassification, Task
from stillhouse.contract.spec.teacher import (
    CheckpointTeacher,
    EnsembleTeacher,
    Member,
    OnnxTeacher,
    SoftLabelsTeacher,
    Teacher,
    TrainTeacher,
)
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
    "Cnn", "Constant", "Cosine", "CrossEntropy", "Data", "Dist", "Dkd", "EarlyStopping", "EnsembleTeacher",
    "Export", "Flip", "Huber", "IdxData", "IdxSplit", "ImageClassification", "JobSpec", "Js", "Kl", "LayerPair",
    "Member", "Mlp", "Mse", "Nkd", "Normalization", "NpzData", "NpzSplit", "Objective", "OneCycle", "OnnxTeacher",
    "Optimizer", "ReverseKl", "Schedule", "Section", "Sgd", "Shift", "SoftLabelsTeacher", "Split", "SquaredError",
    "Step", "Student", "TabularClassification", "Task", "Teacher", "Term", "TrainTeacher", "Training", "Transform",
    "Ttm", "Wttm", "misfits", "usual_objective", "without_logits",
]
