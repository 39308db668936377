"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import Architecture, Cnn, Mlp
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import (
    CsvData,
    CsvSplit,
    Data,
    HuggingFaceData,
    HuggingFaceSplit,
    IdxData,
    IdxSplit,
    ImageFit,
    ImagesData,
    ImagesSplit,
    LabelKind,
    Normalization,
    NpzData,
    NpzSplit,
    ParquetData,
    ParquetSplit,
    PictureData,
    SoftLabelColumns,
    SoftTopK,
    SoftVectors,
    SoftVotes,
    Split,
    label_kind,
)
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
    "Adam", "AdamW", "Architecture", "ArtifactId", "Augmentation", "CheckpointTeacher", "Cnn", "Constant", "Cosine",
    "CrossEntropy", "CsvData", "CsvSplit", "Data", "EarlyStopping", "Export", "Flip", "HuggingFaceData",
    "HuggingFaceSplit", "IdxData", "IdxSplit", "ImageClassification", "ImageFit", "ImagesData", "ImagesSplit",
    "JobSpec", "Kl", "LabelKind", "LayerPair", "Mlp", "Mse", "Normalization", "NpzData", "NpzSplit", "Objective",
    "OneCycle", "Optimizer", "ParquetData", "ParquetSplit", "PictureData", "Schedule", "Section", "Sgd", "Shift",
    "SoftLabelColumns", "SoftTopK", "SoftVectors", "SoftVotes", "Split", "Step", "Student", "TabularClassification",
    "Task", "Teacher", "Term", "TrainTeacher", "Training", "Transform", "label_kind", "usual_objective",
]
