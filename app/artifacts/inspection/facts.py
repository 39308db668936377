"""Facts of uploaded files, as `Artifact.facts` tells them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stillhouse.contract.spec import Architecture, Normalization


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def as_json(self) -> dict[str, Any]:
        """As the artifact's row keeps them."""
        return self.model_dump(mode="json", exclude_none=True)


class ArrayFacts(_Facts):
    """Type, by NumPy's name, and shape of an array or tensor."""

    dtype: str
    shape: list[int]


class SafetensorsFacts(_Facts):
    """A checkpoint."""

    format: Literal["safetensors"] = "safetensors"
    num_tensors: int
    num_parameters: int
    tensors: dict[str, ArrayFacts] | None = Field(default=None, description="Left out where there are too many.")
    metadata: dict[str, str] = {}
    architecture: Architecture | None = None
    architecture_problem: str | None = None
    normalization: Normalization | None = None


class PytorchFacts(_Facts):
    """A checkpoint of torch.save, whose pickle nobody opened."""

    format: Literal["pytorch"] = "pytorch"
    num_tensors: int


class IdxFacts(ArrayFacts):
    """One array; its first axis counts samples."""

    format: Literal["idx"] = "idx"
    is_gzipped: bool


class NpzFacts(_Facts):
    """Arrays by name."""

    format: Literal["npz"] = "npz"
    arrays: dict[str, ArrayFacts]


Facts = SafetensorsFacts | PytorchFacts | IdxFacts | NpzFacts
