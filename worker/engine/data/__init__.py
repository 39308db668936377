"""From files to tensors, and which of them each step sees."""

from worker.engine.data.augment import Augmented, Augmenter, augment, mixed_labels
from worker.engine.data.batches import Batches
from worker.engine.data.dataset import Dataset, Part, Samples, load_dataset
from worker.engine.data.statistics import measure_limits

__all__ = [
    "Augmented", "Augmenter", "Batches", "Dataset", "Part", "Samples", "augment", "load_dataset", "measure_limits",
    "mixed_labels",
]
