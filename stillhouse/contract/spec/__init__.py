"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import (
    Architecture,
    NamedArchitecture,
    Narrowed,
    Shortened,
    named_base,
    num_derivations,
)
from stillhouse.contract.spec.base import ArtifactId, Section
from stillhouse.contract.spec.data import Data, IdxData, IdxSplit, Normalization, NpzData, NpzSplit, Split
from stillhouse.contract.spec.export import Export
from stillhouse.contract.spec.families import Cnn, Mlp, Resnet, Wrn
from stillhouse.contract.spec.job import JobSpec
from stillhouse.contract.spec.libraries import Timm, Torchvision, Transformers
from stillhouse.contract.spec.logit_terms import CrossEntropy, Kl, Mse
from stillhouse.contract.spec.objective import Objective, Term, usual_objective
from stillhouse.contract.spec.student import DerivedStudent, Layers, Pruned, Student
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
    "Adam", "AdamW", "Architecture", "ArtifactId", "Augmentation", "CheckpointTeacher", "Cnn",
    "Constant", "Cosine", "CrossEntropy", "Data", "DerivedStudent", "EarlyStopping", "Export", "Flip", "IdxData",
    "IdxSplit", "ImageClassification", "JobSpec", "Kl", "LayerPair", "Layers", "Mlp", "Mse", "NamedArchitecture",
    "Narrowed", "Normalization", "NpzData", "NpzSplit", "Objective", "OneCycle", "Optimizer", "Pruned", "Resnet",
    "Schedule", "Section", "Sgd", "Shift", "Shortened", "Split", "Step", "Student", "TabularClassification", "Task",
    "Teacher", "Term", "Timm", "Torchvision", "TrainTeacher", "Training", "Transform", "Transformers", "Wrn",
    "named_base", "num_derivations", "usual_objective",
]
