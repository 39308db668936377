"""How images of any size become images of one size."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.contract.spec.base import Section

Pixels = Annotated[int, Field(ge=1, le=16_384)]


class ImageFit(Section):
    """Decoding of images: turned upright, then resized (bilinear, antialiased), then in so many channels of bytes."""

    size: list[Pixels] | None = Field(
        default=None, min_length=2, max_length=2,
        description="[height, width] in pixels. Left out, every image must have one and the same size.",
    )
    resize: Literal["none", "stretch", "shorter_side_crop", "pad"] = Field(
        default="shorter_side_crop",
        description="What is done to an image of another size: `none` refuses it, `stretch` ignores its proportions, "
        "`shorter_side_crop` fits its shorter side and cuts off the rest on both ends, `pad` fits its longer side and "
        "adds black on both ends.",
    )
    channels: Literal[1, 3] | None = Field(
        default=None,
        description="1 for grey, 3 for red, green and blue. Those of the first image when left out; then all must "
        "have as many. Transparency is dropped.",
    )
