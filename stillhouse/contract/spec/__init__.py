"""The job spec, one file per section."""

from stillhouse.contract.spec.architecture import (
    Architecture,
    NamedArchitecture,
    Narrowed,
    Shortened,
    named_base,
    num_derivations,
)
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
from stillhouse.contract.spec.families import Cnn, Mlp, Resnet, Wrn
from stillhouse.contract.spec.feature_terms import At, Cka, CosineDistance, Crd, Fitnet, Nst, Pkt, Review, Rkd, Sp, Vid
from stillhouse.contract.spec.job import JobSpec
from stillhouse.contract.spec.libraries import Timm, Torchvision, Transformers
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
from stillhouse.contract.spec.recipe import RECIPES, Recipe, RecipeName
from stillhouse.contract.spec.soft_labels import AutoSoftLabels, OnlineSoftLabels, SoftLabels, ViewedSoftLabels
from stillhouse.contract.spec.student import DerivedStudent, Layers, Pruned, Student
from stillhouse.contract.spec.task import Classification, Embedding, MultiLabel, Regression, Task
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
    "RECIPES", "Adam", "AdamW", "Affine", "Architecture", "ArtifactId", "At", "Augmentation", "AutoSoftLabels", "Bce",
    "BinaryCrossEntropy", "CheckpointTeacher", "Cka", "Classification", "Cnn", "Constant", "Cosine", "CosineDistance",
    "Crd", "Crop", "CrossEntropy", "CsvData", "CsvSplit", "Cutmix", "Data", "DerivedStudent", "Dist", "Dkd",
    "EarlyStopping", "Embedding", "EnsembleTeacher", "Erasing", "Export", "Fitnet", "Flip", "Huber",
    "HuggingFaceData", "HuggingFaceSplit", "IdxData", "IdxSplit", "ImageFit", "ImagesData", "ImagesSplit", "Jitter",
    "JobSpec", "Js", "Kl", "LabelKind", "LayerPair", "Layers", "Member", "Mixup", "Mlp", "Mse", "MultiLabel",
    "NamedArchitecture", "Narrowed", "Nkd", "Noise", "Normalization", "NpzData", "NpzSplit", "Nst", "Objective",
    "OneCycle", "OnlineSoftLabels", "OnnxTeacher", "Optimizer", "ParquetData", "ParquetSplit", "PictureData", "Pkt",
    "Pruned", "RandomAugment", "Recipe", "RecipeName", "Regression", "ResizedCrop", "Resnet", "ReverseKl", "Review",
    "Rkd", "Rotate", "Schedule", "Section", "Sgd", "Shift", "Shortened", "SoftLabelColumns", "SoftLabels",
    "SoftLabelsTeacher", "SoftTopK", "SoftVectors", "SoftVotes", "Sp", "Split", "SquaredError", "Step", "Student",
    "Task", "Teacher", "Term", "Timm", "Torchvision", "TrainTeacher", "Training", "Transform", "Transformers", "Ttm",
    "Vid", "ViewedSoftLabels", "Wrn", "Wttm", "check_augmentation", "label_kind", "misfits", "named_base",
    "num_derivations", "usual_objective", "without_logits",
]
