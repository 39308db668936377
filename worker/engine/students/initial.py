"""Students that begin with weights that were uploaded."""

from pathlib import Path

from stillhouse.contract.spec import Architecture
from stillhouse.models import LoadedWeights, load_weights
from worker.engine.architectures import blaming


def load_initial_weights(path: Path, architecture: Architecture) -> LoadedWeights:
    """The weights of a file for a student of this complete architecture, by the rules for a teacher's.

    Raises WeightsMismatchError naming the tensors, NonFiniteWeightsError, MalformedSafetensorsError or
    MalformedPytorchError.
    """
    with blaming("/initial_weights"):
        return load_weights(path, architecture)
