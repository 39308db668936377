"""What models are for. Images and tables are classified alike; they differ in how samples are read."""

from worker.engine.tasks.classification import check_labels, given_num_classes, infer_num_classes, name_labels

__all__ = ["check_labels", "given_num_classes", "infer_num_classes", "name_labels"]
