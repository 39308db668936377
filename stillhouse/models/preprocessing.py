"""From raw samples to what a model takes. One class for training and serving, so that the two cannot differ."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from stillhouse.contract.failures import StillhouseError
from stillhouse.contract.spec.data import ImageFit, Normalization
from stillhouse.models.images import FORMATS, Pixels, as_image, fit_image, open_image
from stillhouse.models.table import Row, Table

Layout = Literal["hw", "hwc", "chw", "columns"]
# An image as bytes of a file, its path, Pillow's or an array of any size; or the cells of a row by column.
RawSample = bytes | str | Path | Image.Image | npt.NDArray[Any] | Row
RawBatch = Tensor | npt.NDArray[Any] | Sequence[RawSample]

GREY_AXES, COLOUR_AXES = 2, 3
COLOUR_CHANNELS = (3, 4)

# Pictures that people have, beyond what a data set may hold.
_PICTURES = (*FORMATS, "BMP", "GIF", "TIFF")

_RAW_AXES: dict[Layout, str] = {
    "hw": "(N, height, width)",
    "hwc": "(N, height, width, channels)",
    "chw": "(N, channels, height, width)",
    "columns": "(N, columns)",
}


class Preprocessing(BaseModel):
    """How raw samples become inputs: axes put in order, then (x * scale - mean) / std per channel or column.

    `input_shape` is the model's: (channels, height, width) or (columns,). `dtype` is that of the raw samples, by
    NumPy's name; it tells whether a value is a byte or already a float. With an `image`, images of any size are read
    too; with a `table`, rows of named cells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_shape: tuple[Annotated[int, Field(ge=1)], ...]
    layout: Layout
    dtype: str
    normalization: Normalization
    image: ImageFit | None = None
    table: Table | None = None

    def __call__(self, raw: RawBatch) -> Tensor:
        """Raw samples (N, *raw_shape) -> normalised float32 (N, *input_shape), on the device of `raw`."""
        return self.normalize(self.arrange(raw))

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one raw sample."""
        if self.layout == "hw":
            return self.input_shape[1:]
        if self.layout == "hwc":
            return (*self.input_shape[1:], self.input_shape[0])
        return self.input_shape

    @property
    def raw_axes(self) -> str:
        """Shape of a batch of raw samples in words, for messages."""
        return _RAW_AXES[self.layout]

    def arrange(self, raw: RawBatch) -> Tensor:
        """Raw samples (N, *raw_shape) -> contiguous (N, *input_shape) of the same dtype. Raises ValueError if unfit.

        A sequence is one of images or of rows, each read by itself.
        """
        tensor = self._as_tensor(raw)
        self._check(tensor)
        if self.layout == "hw":
            tensor = tensor.unsqueeze(1)
        elif self.layout == "hwc":
            tensor = tensor.permute(0, 3, 1, 2)
        return tensor.contiguous()

    def normalize(self, arranged: Tensor) -> Tensor:
        """Arranged samples of any dtype (N, *input_shape) -> normalised float32, a new tensor on the same device."""
        # float64 keeps what float32 would round away before the mean is taken off: seconds since 1970, say.
        dtype = torch.float64 if arranged.dtype == torch.float64 else torch.float32
        factor, shift = _constants(*self._affine_key, arranged.device, dtype)
        # One pass: x * (scale / std) - mean / std.
        return torch.addcmul(shift, arranged.to(dtype), factor).to(torch.float32)

    def as_batch(self, raw: RawBatch | RawSample) -> RawBatch:
        """The samples, or the one sample as a batch of its own."""
        if isinstance(raw, bytes | str | Path | Image.Image | Mapping):
            return [raw]
        if isinstance(raw, Tensor | np.ndarray):
            return raw[None] if self._is_one(raw) else raw
        return raw

    def _is_one(self, raw: Tensor | npt.NDArray[Any]) -> bool:
        if self.image is None or raw.shape[1:] == self.raw_shape:
            return raw.ndim == len(self.raw_shape)
        # A picture of any size, grey or in colour, whichever of the two the model reads.
        return raw.ndim == GREY_AXES or (raw.ndim == COLOUR_AXES and (
            self.layout == "hwc" or raw.shape[-1] in COLOUR_CHANNELS
        ))

    def to_json(self) -> str:
        """As preprocessing.json holds it."""
        # What is not used is left out: readers older than it can read the rest.
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """From the text of preprocessing.json. Raises pydantic's ValidationError (a ValueError)."""
        return cls.model_validate_json(text)

    @property
    def _affine_key(self) -> tuple[float, tuple[float, ...], tuple[float, ...], int]:
        norm = self.normalization
        return norm.scale, tuple(norm.mean), tuple(norm.std), len(self.input_shape)

    def _as_tensor(self, raw: RawBatch) -> Tensor:
        if isinstance(raw, Tensor):
            return raw
        if isinstance(raw, np.ndarray) and (self.image is None or raw.shape[1:] == self.raw_shape):
            return _as_tensor(raw)
        if self.table is not None:
            return torch.from_numpy(self.table.encode(_rows(raw)))
        if self.image is not None:
            images = [_fit(sample, number, self.image).reshape(self.raw_shape) for number, sample in enumerate(raw)]
            return torch.from_numpy(np.stack(images)) if images else torch.empty(0, *self.raw_shape, dtype=torch.uint8)
        raise ValueError(f"expected an array of shape {self.raw_axes}, got {type(raw).__name__}")

    def _check(self, tensor: Tensor) -> None:
        if tuple(tensor.shape[1:]) != self.raw_shape or tensor.ndim == 0:
            expected = ", ".join(["N", *map(str, self.raw_shape)])
            raise ValueError(
                f"expected raw samples of shape ({expected}), that is {self.raw_axes}; got {tuple(tensor.shape)}"
            )
        if tensor.is_complex():
            raise ValueError("expected real numbers, got complex ones")
        # A float image in 0 to 1 given to a model of bytes would be answered with confidence, and wrongly.
        if self.layout != "columns" and tensor.is_floating_point() != (np.dtype(self.dtype).kind == "f"):
            raise ValueError(f"the model was trained on images of {self.dtype}, and these are {_dtype_name(tensor)}")

    @field_validator("dtype")
    @classmethod
    def _is_number(cls, dtype: str) -> str:
        try:
            kind = np.dtype(dtype).kind
        except TypeError as error:
            raise ValueError(f"{dtype!r} is not the name of a NumPy type") from error
        if kind not in "fiub":
            raise ValueError(f"{dtype!r} is not a type of real numbers")
        return dtype

    @model_validator(mode="after")
    def _shape_fits(self) -> Self:
        if len(self.input_shape) != (1 if self.layout == "columns" else 3):
            raise ValueError(f"layout {self.layout} does not go with input shape {self.input_shape}")
        if self.layout == "hw" and self.input_shape[0] != 1:
            raise ValueError(f"layout hw has one channel, and input shape {self.input_shape} has more")
        if len(self.normalization.mean) not in {1, self.input_shape[0]}:
            raise ValueError(
                f"normalization has {len(self.normalization.mean)} values for {self.input_shape[0]} channels or columns"
            )
        if self.image is not None and (
            self.layout not in {"hw", "hwc"}
            or [self.image.channels, *(self.image.size or [])] != list(self.input_shape)
        ):
            raise ValueError(f"images are not fitted to the input's shape {self.input_shape}")
        if self.table is not None and (len(self.table.inputs),) != self.input_shape:
            raise ValueError(f"the table makes {len(self.table.inputs)} inputs for input shape {self.input_shape}")
        return self


def _fit(sample: object, number: int, fit: ImageFit) -> Pixels:
    """An image of any kind in the fit's size and channels. Raises ValueError that names it."""
    name = f"image {number}" + (f" ({Path(sample).name})" if isinstance(sample, str | Path) else "")
    try:
        if isinstance(sample, bytes | str | Path):
            return fit_image(open_image(sample, _PICTURES), fit)
        if isinstance(sample, np.ndarray):
            return fit_image(as_image(sample), fit)
        if isinstance(sample, Image.Image):
            return fit_image(sample, fit)
    except StillhouseError as error:
        raise ValueError(f"{name}: {error.message}") from error
    raise ValueError(f"{name} is no path, bytes, array or picture of Pillow's, but {type(sample).__name__}")


def _rows(raw: object) -> Sequence[Row]:
    if not isinstance(raw, Sequence) or not all(isinstance(row, Mapping) for row in raw):
        raise ValueError("expected rows as mappings from the name of a column to a value")
    return raw


def _as_tensor(array: npt.NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"expected real numbers, got an array of {array.dtype}")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not native.flags.writeable:  # torch warns about memory that it must not write to
        native = native.copy()
    return torch.from_numpy(np.ascontiguousarray(native))


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@lru_cache(maxsize=64)
def _constants(
    scale: float, mean: tuple[float, ...], std: tuple[float, ...], num_axes: int, device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Factor and shift, shaped to broadcast over a sample; kept, since making them costs a copy to the device."""
    with torch.inference_mode(mode=False):  # kept tensors must serve training too, whoever asks first
        wide = torch.tensor([mean, std], dtype=torch.float64).view(2, -1, *[1] * (num_axes - 1))
        factor, shift = scale / wide[1], -wide[0] / wide[1]
        return factor.to(device, dtype), shift.to(device, dtype)
