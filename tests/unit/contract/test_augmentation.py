"""What an augmentation may say, and which images it fits."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from stillhouse.contract.failures import InvalidSpecError
from stillhouse.contract.spec import Augmentation, Transform, check_augmentation

KINDS = get_args(get_args(Transform)[0])


def augmentation(*transforms: dict[str, Any]) -> Augmentation:
    return Augmentation.model_validate({"transforms": list(transforms)})


@pytest.mark.parametrize("kind", KINDS)
def test_every_transform_has_defaults_that_any_colour_image_of_ordinary_size_takes(kind: type) -> None:
    named = augmentation({"kind": kind.model_fields["kind"].default})  # type: ignore[attr-defined]
    check_augmentation(named, [3, 28, 28])
    check_augmentation(named, [1, 28, 28])


@pytest.mark.parametrize(
    ("transforms", "told"),
    [
        ([{"kind": "flip", "horizontal": False}], "horizontal, vertical or both"),
        ([{"kind": "resized_crop", "min_area": 0.5, "max_area": 0.4}], "min_area must be at most max_area"),
        ([{"kind": "resized_crop", "min_ratio": 2.0, "max_ratio": 1.0}], "min_ratio must be at most max_ratio"),
        ([{"kind": "erasing", "min_area": 0.5}], "min_area must be at most max_area"),
        ([{"kind": "erasing", "min_ratio": 4.0}], "min_ratio must be at most max_ratio"),
        ([{"kind": "affine", "min_scale": 2.0}], "min_scale must be at most max_scale"),
        ([{"kind": "affine", "degrees": 0, "translation": 0, "shear": 0, "min_scale": 1, "max_scale": 1}],
         "affine changes nothing"),
        ([{"kind": "jitter", "brightness": 0, "contrast": 0}], "jitter changes nothing"),
        ([{"kind": "mixup"}, {"kind": "flip"}], "must come last"),
        ([{"kind": "cutmix"}, {"kind": "noise"}, {"kind": "mixup"}], "must come last"),
        ([{"kind": "mixup"}, {"kind": "mixup"}], "each stand in transforms once"),
        ([{"kind": "crop", "padding_mode": "edge"}], "'constant' or 'reflect'"),
        ([{"kind": "rotate", "degrees": 0}], "greater than 0"),
        ([{"kind": "mixup", "alpha": 0}], "greater than or equal to 0.01"),
        ([{"kind": "random_augment", "magnitude": 9}], "less than or equal to 1"),
        ([{"kind": "shift", "pixel": 1}], "Extra inputs"),
        ([], "at least 1 item"),
    ],
)
def test_what_has_no_meaning_is_refused(transforms: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        augmentation(*transforms)


def test_mixing_is_known_and_both_ways_may_end_a_list() -> None:
    assert not augmentation({"kind": "flip"}).mixes
    assert augmentation({"kind": "flip"}, {"kind": "mixup"}).mixes
    assert augmentation({"kind": "cutmix"}, {"kind": "mixup"}).mixes


@pytest.mark.parametrize(
    ("transform", "shape", "field", "told"),
    [
        ({"kind": "shift", "pixels": 8}, [1, 8, 20], "pixels",
         "shift: 8 pixels reach across images of 8 x 20; give at most 7"),
        ({"kind": "shift", "pixels": 1}, [3, 1, 1], "pixels", "leave it out"),
        ({"kind": "crop"}, [3, 9, 4], "padding", "give at most 3"),
        ({"kind": "crop", "padding_mode": "reflect"}, [3, 4, 9], "padding", "give at most 3"),
        ({"kind": "jitter", "saturation": 0.2}, [1, 9, 9], "saturation", "images have 1 channel; set it to 0"),
        ({"kind": "jitter", "hue": 0.2}, [4, 9, 9], "hue", "images have 4 channels; set it to 0"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_with_its_place(
    transform: dict[str, Any], shape: list[int], field: str, told: str
) -> None:
    with pytest.raises(InvalidSpecError, match=told) as caught:
        check_augmentation(augmentation({"kind": "flip"}, transform), shape)
    assert caught.value.param == f"/training/augmentation/transforms/1/{field}"
    with pytest.raises(InvalidSpecError) as caught:
        check_augmentation(augmentation(transform), shape, param="/teacher/training/augmentation")
    assert caught.value.param == f"/teacher/training/augmentation/transforms/0/{field}"


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        ({"kind": "shift", "pixels": 7}, [1, 8, 20]), ({"kind": "crop"}, [3, 5, 5]),
        ({"kind": "jitter", "saturation": 0.2, "hue": 0.1}, [3, 1, 1]), ({"kind": "random_augment"}, [1, 1, 1]),
        ({"kind": "cutmix"}, [2, 1, 1]),
    ],
)
def test_what_fits_just_so_is_admitted(transform: dict[str, Any], shape: list[int]) -> None:
    check_augmentation(augmentation(transform), shape)


def test_rows_of_a_table_are_not_augmented() -> None:
    with pytest.raises(InvalidSpecError, match="a table") as caught:
        check_augmentation(augmentation({"kind": "flip"}), [12])
    assert caught.value.param == "/training/augmentation"
