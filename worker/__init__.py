"""All that may import torch: the Celery worker, its supervisors and trainers, and the engine."""
