"""The folders of an archive of images."""

from collections.abc import Mapping

from app.artifacts.inspection.facts import ImagesFacts
from app.jobs.headers.stored import Stored, hint
from stillhouse.contract.archives import below
from stillhouse.contract.failures import UnknownFolderError, UnknownLabelError, UnusableLabelsError
from stillhouse.contract.spec import ImagesData, ImagesSplit


def check_folders(data: ImagesData, stored: Mapping[str, Stored]) -> None:
    """Raise what fits when a split's folders are not there, or are not those of classes."""
    known: set[str] | None = set(data.label_names) if data.label_names else None
    for name in ("train", "validation", "test"):
        split: ImagesSplit | None = getattr(data, name)
        if split is None:
            continue
        folders = ImagesFacts.model_validate(stored[split.artifact].facts).folders
        if folders is None:
            continue
        classes = _classes(split, folders, f"/data/{name}")
        if not split.is_labelled:
            continue
        known = known or classes
        if unknown := sorted(classes - known):
            raise UnknownLabelError(
                f"Folder `{unknown[0]}` is no class; {hint(unknown[0], known)}", param=f"/data/{name}/folder"
            )


def _classes(split: ImagesSplit, folders: Mapping[str, int], pointer: str) -> set[str]:
    """Names of the folders of the first level."""
    inside = [rest for folder in folders if (rest := below(f"{folder}/".lstrip("/"), split.folder)) is not None]
    if not inside:
        tops = sorted({folder.partition("/")[0] for folder in folders})
        raise UnknownFolderError(
            f"The archive has no images below `{split.folder}`; {hint(split.folder or '', tops)}",
            param=f"{pointer}/folder",
        )
    if not split.is_labelled:
        return set()
    if "" in inside:
        raise UnusableLabelsError(
            f"There are images outside any folder of {split.folder or 'the archive'}; put each into a folder named by "
            "its class, or set labels to null.", param=f"{pointer}/labels",
        )
    classes = {rest.partition("/")[0] for rest in inside}
    if len(classes) == 1 and any("/" in rest.rstrip("/") for rest in inside):
        (only,) = classes
        wrapper = f"{split.folder.strip('/')}/{only}" if split.folder else only
        raise UnusableLabelsError(
            f"All images are in the folder `{wrapper}`; if its folders are the classes, set folder to `{wrapper}`.",
            param=f"{pointer}/folder",
        )
    return classes
