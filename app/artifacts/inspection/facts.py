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


class OnnxValue(_Facts):
    """An input or output of a model. No type where it is no tensor; null for a free axis."""

    dtype: str | None = None
    shape: list[int | None] | None = None


class OnnxFacts(_Facts):
    """A model as an ONNX file."""

    format: Literal["onnx"] = "onnx"
    producer: str = Field(description="What wrote the file.")
    inputs: dict[str, OnnxValue] = Field(description="In the order of the graph.")
    outputs: dict[str, OnnxValue]
    num_parameters: int


class ParquetFacts(_Facts):
    """Columns by name, and how many rows they have."""

    format: Literal["parquet"] = "parquet"
    num_rows: int
    columns: dict[str, str] = Field(description="Name of each column and its type, as Arrow would call it.")


class CsvFacts(_Facts):
    """A table as text."""

    format: Literal["csv"] = "csv"
    header: str = Field(description="The first line, which names the columns.")


class ImagesFacts(_Facts):
    """Images in folders."""

    format: Literal["images"] = "images"
    num_images: int
    folders: dict[str, int] | None = Field(
        default=None, description="Each folder with images -> how many. Left out where there are too many."
    )


class DatasetFolder(_Facts):
    """One split that Hugging Face `datasets` saved."""

    columns: dict[str, str] = Field(description="Name of each column and its type.")
    label_names: dict[str, list[str]] = Field(description="Columns of class numbers -> the names of their classes.")
    num_files: int


class HuggingFaceFacts(_Facts):
    """Folders that Hugging Face `datasets` saved, by path in the archive."""

    format: Literal["hugging_face"] = "hugging_face"
    folders: dict[str, DatasetFolder]


Facts = (
    SafetensorsFacts | PytorchFacts | OnnxFacts | IdxFacts | NpzFacts | ParquetFacts | CsvFacts | ImagesFacts
    | HuggingFaceFacts
)
