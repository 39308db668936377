"""Models of timm, torchvision and transformers by name. The libraries are imported when the first one is asked for.

Nothing here reaches for a hub, runs code that comes with a model, or opens a file.
"""

from stillhouse.models.libraries.asking import describe_library
from stillhouse.models.libraries.from_timm import build_timm
from stillhouse.models.libraries.from_torchvision import build_torchvision
from stillhouse.models.libraries.from_transformers import build_transformers

__all__ = ["build_timm", "build_torchvision", "build_transformers", "describe_library"]
