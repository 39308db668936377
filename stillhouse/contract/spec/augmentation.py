"""Random changes to images while training."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from stillhouse.contract.failures import InvalidSpecError
from stillhouse.contract.spec.base import Section

Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0.1, le=10)]

_IMAGE_AXES = 3
_COLOUR_CHANNELS = 3


class ImageShape(NamedTuple):
    """Axes of an image as models see it."""

    channels: int
    height: int
    width: int


class Misfit(NamedTuple):
    """Why a transform cannot change images of some shape."""

    field: str
    reason: str


class _Transform(Section):
    # Whether it blends an image with another sample's, so that labels are blended too.
    mixes: ClassVar[bool] = False

    def misfit(self, shape: ImageShape) -> Misfit | None:
        """What keeps it from images of this shape; None where nothing does."""
        del shape
        return None


class Shift(_Transform):
    """Move an image by a random whole number of pixels along each axis; what comes in is 0."""

    kind: Literal["shift"] = "shift"
    pixels: int = Field(
        default=2, ge=1, le=256, description="Largest shift along each axis, in pixels; less than either side."
    )

    def misfit(self, shape: ImageShape) -> Misfit | None:
        """Whether the image could leave its own frame."""
        return _too_far("pixels", self.pixels, shape)


class Flip(_Transform):
    """Mirror an image along each chosen axis with probability 1/2."""

    kind: Literal["flip"] = "flip"
    horizontal: bool = Field(default=True, description="Mirror left to right.")
    vertical: bool = Field(default=False, description="Mirror top to bottom.")

    @model_validator(mode="after")
    def _mirrors(self) -> Self:
        if not (self.horizontal or self.vertical):
            raise ValueError("flip must be horizontal, vertical or both; leave it out otherwise")
        return self


class Crop(_Transform):
    """Pad an image on every side and cut a window of its own size out at a random place, as CIFAR recipes do."""

    kind: Literal["crop"] = "crop"
    padding: int = Field(
        default=4, ge=1, le=256, description="Pixels added on every side; less than either side of the image."
    )
    padding_mode: Literal["constant", "reflect"] = Field(
        default="constant",
        description="What is added: 0, or the image mirrored at its edge without repeating the edge.",
    )

    def misfit(self, shape: ImageShape) -> Misfit | None:
        """Whether the window could miss the image."""
        return _too_far("padding", self.padding, shape)


class ResizedCrop(_Transform):
    """Cut out a window of random area, shape and place and enlarge it, bilinearly, to the size of the image."""

    kind: Literal["resized_crop"] = "resized_crop"
    min_area: Share = Field(default=0.08, description="Smallest area of the window, as a share of the image's.")
    max_area: Share = Field(default=1.0, description="Largest area of the window, as a share of the image's.")
    min_ratio: Ratio = Field(
        default=3 / 4,
        description="Smallest ratio of width to height, as a multiple of the image's own. Drawn evenly by its "
        "logarithm; a side longer than the image's is cut to it.",
    )
    max_ratio: Ratio = Field(default=4 / 3, description="Largest ratio of width to height.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self, "area", "ratio")
        return self


class Rotate(_Transform):
    """Turn an image about its centre by a random angle, bilinearly; what comes in is 0."""

    kind: Literal["rotate"] = "rotate"
    degrees: float = Field(default=15.0, gt=0, le=180, description="Largest angle to either side, in degrees.")


class Affine(_Transform):
    """Shear, scale, turn and move an image at once, bilinearly; what comes in is 0."""

    kind: Literal["affine"] = "affine"
    degrees: float = Field(default=10.0, ge=0, le=180, description="Largest angle to either side, in degrees.")
    translation: float = Field(default=0.1, ge=0, lt=1, description="Largest move, as a share of each side.")
    min_scale: float = Field(default=0.9, ge=0.1, le=10, description="Smallest size, as a multiple of the image's.")
    max_scale: float = Field(default=1.1, ge=0.1, le=10, description="Largest size, as a multiple of the image's.")
    shear: float = Field(
        default=5.0, ge=0, le=60, description="Largest angle by which vertical lines lean, in degrees."
    )

    @model_validator(mode="after")
    def _changes(self) -> Self:
        _check_order(self, "scale")
        if not (self.degrees or self.translation or self.shear) and self.min_scale == self.max_scale == 1:
            raise ValueError("affine changes nothing; set degrees, translation, a scale or shear, or leave it out")
        return self


class Jitter(_Transform):
    """Change brightness, contrast, saturation and hue, in this order, each by a random amount, within the range."""

    kind: Literal["jitter"] = "jitter"
    brightness: float = Field(
        default=0.4, ge=0, le=1, description="b: values are multiplied by 1 - b to 1 + b, seen from black."
    )
    contrast: float = Field(
        default=0.4, ge=0, le=1, description="c: distances to the image's mean grey are multiplied by 1 - c to 1 + c."
    )
    saturation: float = Field(
        default=0.0, ge=0, le=1,
        description="s: distances to each pixel's grey are multiplied by 1 - s to 1 + s. Needs 3 channels.",
    )
    hue: float = Field(
        default=0.0, ge=0, le=0.5,
        description="Largest turn of the colour circle to either side, in full turns. Needs 3 channels.",
    )

    @model_validator(mode="after")
    def _changes(self) -> Self:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            raise ValueError("jitter changes nothing; set one of its fields above 0, or leave it out")
        return self

    def misfit(self, shape: ImageShape) -> Misfit | None:
        """Whether there is no colour to change."""
        if shape.channels == _COLOUR_CHANNELS:
            return None
        for field in ("saturation", "hue"):
            if getattr(self, field):
                channels = f"{shape.channels} channel{'s' if shape.channels > 1 else ''}"
                return Misfit(field, f"{field} needs red, green and blue, but images have {channels}; set it to 0")
        return None


class RandomAugment(_Transform):
    """Apply some of 14 operations of one strength, drawn anew for each image (Cubuk et al.: RandAugment, 2020).

    The operations: none, shear (2 axes), move (2 axes), turn, brightness, contrast, saturation, sharpness, posterise,
    solarise, stretch of contrast, equalise. Saturation leaves an image as it is unless it has 3 channels.
    """

    kind: Literal["random_augment"] = "random_augment"
    num_ops: int = Field(default=2, ge=1, le=8, description="Operations per image; one may be drawn twice.")
    magnitude: float = Field(
        default=0.3, ge=0, le=1,
        description="Strength, as a share of each operation's largest: what torchvision calls 9 of 30 is 0.3.",
    )


class Erasing(_Transform):
    """Set a random rectangle of an image to 0 (Zhong et al.: Random erasing data augmentation, 2020)."""

    kind: Literal["erasing"] = "erasing"
    probability: Share = Field(default=0.25, description="Share of the images that lose a rectangle.")
    min_area: Share = Field(default=0.02, description="Smallest area of the rectangle, as a share of the image's.")
    max_area: Share = Field(default=1 / 3, description="Largest area of the rectangle, as a share of the image's.")
    min_ratio: Ratio = Field(
        default=0.3,
        description="Smallest ratio of width to height, as a multiple of the image's own. Drawn evenly by its "
        "logarithm; a side longer than the image's is cut to it.",
    )
    max_ratio: Ratio = Field(default=1 / 0.3, description="Largest ratio of width to height.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self, "area", "ratio")
        return self


class Noise(_Transform):
    """Add Gaussian noise to every value, within the range: a random stretch of one long sequence per image."""

    kind: Literal["noise"] = "noise"
    std: float = Field(
        default=0.05, gt=0, le=1, description="Standard deviation, as a share of the range of the values."
    )


class _Mixing(_Transform):
    mixes: ClassVar[bool] = True

    alpha: float = Field(
        default=1.0, ge=0.01, le=100,
        description="The share that a sample keeps is drawn from Beta(alpha, alpha): 1 is uniform, less is milder.",
    )
    probability: Share = Field(default=1.0, description="Share of the samples that are mixed.")


class Mixup(_Mixing):
    """Blend an image with that of a random sample of the training split (Zhang et al.: mixup, 2018).

    Labels are blended alike. Comes last.
    """

    kind: Literal["mixup"] = "mixup"
    alpha: float = Field(
        default=0.2, ge=0.01, le=100,
        description="The share that a sample keeps is drawn from Beta(alpha, alpha): 1 is uniform, less is milder.",
    )


class Cutmix(_Mixing):
    """Put a rectangle of a random sample of the training split into an image (Yun et al.: CutMix, 2019).

    Labels are blended by area. Comes last.
    """

    kind: Literal["cutmix"] = "cutmix"


Transform = Annotated[
    Shift | Flip | Crop | ResizedCrop | Rotate | Affine | Jitter | RandomAugment | Erasing | Noise | Mixup | Cutmix,
    Field(discriminator="kind"),
]


class Augmentation(Section):
    """Random changes to each image. Draws depend on (seed, sample, view) only, so a run can be replayed.

    Where both mixup and cutmix stand at the end, each sample takes one of the two, with equal chance.
    """

    transforms: list[Transform] = Field(min_length=1, max_length=16, description="Applied in this order.")
    seed: int = Field(
        default=0, ge=0, lt=2**63,
        description="Seed of the draws. Apart from the job's seed, so that jobs can share what they draw.",
    )

    @property
    def mixes(self) -> bool:
        """Whether images of two samples are blended, and with them their labels."""
        return any(transform.mixes for transform in self.transforms)

    @model_validator(mode="after")
    def _mixing_comes_last(self) -> Self:
        kinds = [transform.kind for transform in self.transforms if transform.mixes]
        if len(kinds) != len(set(kinds)):
            raise ValueError("mixup and cutmix may each stand in transforms once")
        last = self.transforms[len(self.transforms) - len(kinds):]
        if not all(transform.mixes for transform in last):
            raise ValueError("mixup and cutmix must come last in transforms: both images are changed before they mix")
        return self


def check_augmentation(
    augmentation: Augmentation, input_shape: Sequence[int], *, param: str = "/training/augmentation"
) -> None:
    """Raise InvalidSpecError for what cannot change inputs of this shape: (channels, height, width), or (columns,).

    `param` is the pointer of the augmentation in the spec.
    """
    if len(input_shape) != _IMAGE_AXES:
        raise InvalidSpecError("Augmentation changes images, but the data is a table; leave it out.", param=param)
    for place, transform in enumerate(augmentation.transforms):
        if misfit := transform.misfit(ImageShape(*input_shape)):
            raise InvalidSpecError(
                f"{transform.kind}: {misfit.reason}.", param=f"{param}/transforms/{place}/{misfit.field}"
            )


def _too_far(field: str, pixels: int, shape: ImageShape) -> Misfit | None:
    most = min(shape.height, shape.width) - 1
    if pixels <= most:
        return None
    instead = f"give at most {most}" if most else "leave it out"
    return Misfit(field, f"{pixels} pixels reach across images of {shape.height} x {shape.width}; {instead}")


def _check_order(section: Section, *names: str) -> None:
    """Raise ValueError unless each `min_` is at most its `max_`."""
    for name in names:
        if getattr(section, f"min_{name}") > getattr(section, f"max_{name}"):
            raise ValueError(f"min_{name} must be at most max_{name}")
