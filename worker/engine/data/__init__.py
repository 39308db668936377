"""From files to tensors, and which of them each step sees."""

from worker.engine.data.augment import augment
from worker.engine.data.batches import Batches
from worker.engine.data.dataset import Dataset, Part, Samples, load_dataset

__all__ = ["Batches", "Dataset", "Part", "Samples", "augment", "load_dataset"]
