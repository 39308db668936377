"""What comes out."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.base import Section


class Export(Section):
    """Files of the compressed model, beside its report."""

    formats: list[Literal["safetensors", "onnx"]] = Field(
        default=["safetensors", "onnx"], min_length=1, max_length=2,
        description="Formats of the weights in the bundle; safetensors is always among them.",
    )

    @model_validator(mode="after")
    def _has_safetensors(self) -> Self:
        if "safetensors" not in self.formats:
            raise ValueError("formats must include safetensors: the bundle is loaded from it")
        return self
