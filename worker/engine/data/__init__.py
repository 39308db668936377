"""From files to tensors, and which of them each step sees."""

from worker.engine.data.augment import Augmented, Augmenter, mixed_labels
from worker.engine.data.batches import Batches
from worker.engine.data.classes import ClassCounts, count_classes, describe_classes
from worker.engine.data.dataset import Dataset, Part, Samples, load_dataset
from worker.engine.data.soft_labels import SoftLabels
from worker.engine.data.source import MappedSource, MemorySource, Source
from worker.engine.data.statistics import measure_limits

__all__ = [
    "Augmented", "Augmenter", "Batches", "ClassCounts", "Dataset", "MappedSource", "MemorySource", "Part", "Samples",
    "SoftLabels", "Source", "count_classes", "describe_classes", "load_dataset", "measure_limits", "mixed_labels",
]
