"""From raw samples to what a model takes. One class for training and serving, so that the two cannot differ."""

from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PrivateAttr
from torch import Tensor

from stillhouse.contract.spec.data import Normalization

Layout = Literal["hw", "hwc", "chw", "columns"]
RawBatch = Tensor | np.ndarray


class Preprocessing(BaseModel):
    """How raw samples become inputs: axes put in order, then (x * scale - mean) / std per channel or column.

    `input_shape` is the model's: (channels, height, width) or (columns,). `dtype` is that of the raw samples, by
    NumPy's name; it tells whether a value is a byte or already a float.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_shape: tuple[int, ...]
    layout: Layout
    dtype: str
    normalization: Normalization

    def __call__(self, raw: RawBatch) -> Tensor:
        """Raw samples (N, *raw_shape) -> normalised float32 (N, *input_shape), on the device of `raw`."""
        return self.normalize(self.arrange(raw))

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one raw sample."""
        raise NotImplementedError

    def arrange(self, raw: RawBatch) -> Tensor:
        """Raw samples (N, *raw_shape) -> contiguous (N, *input_shape) of the same dtype. Raises ValueError if unfit."""
        raise NotImplementedError

    def normalize(self, arranged: Tensor) -> Tensor:
        """Arranged samples of any dtype (N, *input_shape) -> normalised float32, a new tensor on the same device."""
        raise NotImplementedError

    def to_json(self) -> str:
        """As preprocessing.json holds it."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """From the text of preprocessing.json. Raises pydantic's ValidationError (a ValueError)."""
        return cls.model_validate_json(text)
