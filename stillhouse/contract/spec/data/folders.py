"""Images in folders, one folder for each class."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stillhouse.contract.spec.data.base import FileSplit, PictureData, refuse_layout


class ImagesSplit(FileSplit):
    """One split as an archive of images, or as a folder of it. The first level of folders names the classes."""

    folder: str | None = Field(
        default=None, min_length=1, max_length=1024,
        description="Folder in the archive that holds this split's classes, such as `train`; all of it when left out.",
    )
    labels: Literal["folders"] | None = Field(
        default="folders", description="Where an image's class comes from; null for unlabelled images."
    )

    @property
    def is_labelled(self) -> bool:
        """Whether the split has labels."""
        return self.labels is not None


class ImagesData(PictureData):
    """PNG, JPEG or WebP images in folders named by class, as tar (gzipped or not) or zip."""

    kind: Literal["images"] = "images"
    train: ImagesSplit = Field(description="Samples to train on.")
    validation: ImagesSplit | None = Field(default=None, description="Samples to select the best step on.")
    test: ImagesSplit | None = Field(default=None, description="Samples for the report, touched once, at the end.")

    @model_validator(mode="after")
    def _has_no_layout(self) -> Self:
        refuse_layout(self)
        return self
