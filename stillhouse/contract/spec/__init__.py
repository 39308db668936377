"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import Architecture, Cnn, Mlp
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Data, IdxData, IdxSplit, Normalization, NpzData, NpzSplit, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.feature_terms import At, Cka, CosineDistance, Crd, Fitnet, Nst, Pkt, Review, Rkd, Sp, Vid
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
    "Adam", "AdamW", "Architecture", "ArtifactId", "At", "Augmentation", "Bce", "BinaryCrossEntropy",
    "CheckpointTeacher", "Cka", "Cnn", "Constant", "Cosine", "CosineDistance", "Crd", "CrossEntropy", "Data",
    "Dist", "Dkd", "EarlyStopping", "EnsembleTeacher", "Export", "Fitnet", "Flip", "Huber", "IdxData", "IdxSplit",
    "ImageClassification", "JobSpec", "Js", "Kl", "LayerPair", "Member", "Mlp", "Mse", "Nkd", "Normalization",
    "NpzData", "NpzSplit", "Nst", "Objective", "OneCycle", "OnnxTeacher", "Optimizer", "Pkt", "ReverseKl", "Review",
    "Rkd", "Schedule", "Section", "Sgd", "Shift", "SoftLabelsTeacher", "Sp", "Split", "SquaredError", "Step",
    "Student", "TabularClassification", "Task", "Teacher", "Term", "TrainTeacher", "Training", "Transform", "Ttm",
    "Vid", "Wttm", "misfits", "usual_objective", "without_logits",
]
