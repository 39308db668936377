"""Parquet files, and folders that Hugging Face `datasets` saved: both are columns of Arrow's."""

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits

from stillhouse.contract.failures import (
    EmptyDataError,
    InvalidSpecError,
    MalformedDatasetError,
    MalformedImageError,
    MalformedParquetError,
    MissingValuesError,
    MixedImageShapesError,
    NonFiniteInputsError,
    StillhouseError,
    UnknownColumnError,
    UnknownFolderError,
    UnknownLabelError,
    UnsafeArchiveError,
    UnusableArrayError,
    UnusableColumnError,
    UnusableLabelsError,
)
from tests.fixtures.archives import encoded, noise, pack
from tests.fixtures.datasets import Shelf

DIGITS = load_digits()
IMAGES = (DIGITS.images[:60] * 15).astype(np.uint8)
LABELS = DIGITS.target[:60]
ENCODED = [{"bytes": encoded(image), "path": f"{number}.png"} for number, image in enumerate(IMAGES)]


def labels_of(shelf: Shelf, column: Any, **data: Any) -> tuple[list[int], list[bool] | None]:  # noqa: ANN401 - Arrow's
    artifact = shelf.put_table("p", {"x": np.zeros(len(column)), "label": column})
    samples = shelf.load("parquet", {"files": artifact, "inputs": "x"}, **data).train.samples
    assert samples.labels is not None
    return samples.labels.tolist(), None if samples.mask is None else samples.mask.tolist()


@pytest.mark.parametrize("column", [
    pa.array(ENCODED), pa.array([row["bytes"] for row in ENCODED]),
    pa.array([row["bytes"] for row in ENCODED], pa.large_binary()),
])
def test_encoded_images_are_decoded(shelf: Shelf, column: pa.Array) -> None:
    artifact = shelf.put_table("p", {"image": column, "label": LABELS}, row_group_size=7)
    dataset = shelf.load("parquet", {"files": artifact})
    samples = dataset.train.samples
    assert np.array_equal(samples.arranged.numpy(), IMAGES[:, None])
    assert np.array_equal(samples.raw.numpy(), IMAGES)
    assert samples.labels is not None
    assert samples.labels.tolist() == LABELS.tolist()
    assert dataset.input_shape == (1, 8, 8)
    assert not dataset.is_table
    # What training saw, the bundle makes of the files themselves.
    files = [row["bytes"] for row in ENCODED]
    assert torch.equal(dataset.preprocessing.arrange(files), samples.arranged)  # type: ignore[arg-type]


def test_files_are_read_one_after_the_other(shelf: Shelf) -> None:
    artifacts = [
        shelf.put_table(f"p{start}", {"image": ENCODED[start:start + 20], "label": LABELS[start:start + 20]})
        for start in (0, 20, 40)
    ]
    samples = shelf.load("parquet", {"files": [artifacts[0], artifacts[2], artifacts[1]]}).train.samples
    order = [*range(20), *range(40, 60), *range(20, 40)]
    assert np.array_equal(samples.arranged.numpy(), IMAGES[order][:, None])
    assert samples.labels is not None
    assert samples.labels.tolist() == LABELS[order].tolist()


def test_images_of_any_size_become_one_size(shelf: Shelf) -> None:
    sizes = [(8, 8), (20, 10), (9, 30), (8, 8)] * 3
    files = [encoded(noise(*size, 3, seed=number)) for number, size in enumerate(sizes)]
    artifact = shelf.put_table("p", {"image": files, "label": [0, 1] * 6})
    dataset = shelf.load("parquet", {"files": artifact}, image={"size": [8, 8], "resize": "pad", "channels": 1})
    assert dataset.train.samples.arranged.shape == (12, 1, 8, 8)
    assert torch.equal(dataset.preprocessing.arrange(files), dataset.train.samples.arranged)


@pytest.mark.parametrize(
    ("odd", "image", "told", "param"),
    [
        (noise(8, 9, 3), {}, r"row 5: it is 8 x 9 pixels, and row 0 is 8 x 8; set data.image.size", "/data/image/size"),
        (noise(8, 8), {}, "row 5: it has 1 channels, and row 0 has 3; set data.image.channels", "/data/image/channels"),
        (noise(8, 9, 3), {"size": [8, 8], "resize": "none"}, "row 5: it is 8 x 9 instead of 8 x 8",
         "/data/train/inputs"),
    ],
)
def test_mixed_images_are_told_with_both_and_with_what_to_set(
    shelf: Shelf, odd: Any, image: dict[str, Any], told: str, param: str  # noqa: ANN401 - an array
) -> None:
    files = [encoded(noise(8, 8, 3))] * 5 + [encoded(odd)] + [encoded(noise(8, 8, 3))] * 20
    artifact = shelf.put_table("p", {"image": files, "label": [0, 1] * 13})
    with pytest.raises(MixedImageShapesError, match=told) as caught:
        shelf.load("parquet", {"files": artifact}, image=image)
    assert caught.value.param == param


def test_a_damaged_image_is_told_with_its_row_and_path(shelf: Shelf) -> None:
    broken = [*ENCODED[:9], {"bytes": ENCODED[9]["bytes"][:60], "path": "cat/9.png"}, *ENCODED[10:]]
    artifact = shelf.put_table("p", {"image": broken, "label": LABELS})
    with pytest.raises(MalformedImageError, match=r"row 9 \(`cat/9.png`\): it is cut short or damaged"):
        shelf.load("parquet", {"files": artifact})


@pytest.mark.parametrize("row", [None, {"bytes": None, "path": "/etc/passwd"}])
def test_a_path_instead_of_an_image_is_not_followed(shelf: Shelf, row: Any) -> None:  # noqa: ANN401 - any row
    artifact = shelf.put_table("p", {"image": pa.array([*ENCODED[:3], row]), "label": [0, 1, 0, 1]})
    with pytest.raises(MissingValuesError, match="paths are not followed"):
        shelf.load("parquet", {"files": artifact})


NUMBERS = noise(24, 6).astype(np.float32)


@pytest.mark.parametrize(
    ("columns", "inputs", "shape"),
    [
        ({"x": list(NUMBERS)}, "x", (6,)),
        ({"x": pa.array(NUMBERS.tolist(), pa.large_list(pa.float32()))}, "x", (6,)),
        ({"x": pa.FixedSizeListArray.from_arrays(NUMBERS.ravel(), 6)}, "x", (6,)),
        ({"x": pa.array(NUMBERS.reshape(24, 2, 3).tolist(), pa.list_(pa.list_(pa.float32())))}, "x", (1, 2, 3)),
        ({"x": pa.array(NUMBERS.reshape(24, 2, 1, 3).tolist(), pa.list_(pa.list_(pa.list_(pa.float32()))))}, "x",
         (3, 2, 1)),
        ({f"c{place}": NUMBERS[:, place] for place in range(6)}, [f"c{place}" for place in range(6)], (6,)),
        ({"c0": NUMBERS[:, 0]}, "c0", (1,)),
    ],
)
def test_numbers_are_read_from_lists_and_from_columns(
    shelf: Shelf, columns: dict[str, Any], inputs: list[str] | str, shape: tuple[int, ...]
) -> None:
    artifact = shelf.put_table("p", columns | {"label": [0, 1] * 12}, row_group_size=5)
    dataset = shelf.load("parquet", {"files": artifact, "inputs": inputs})
    found = dataset.train.samples.raw
    assert dataset.input_shape == shape
    expected = NUMBERS[:, :1] if inputs == "c0" else NUMBERS
    assert found.dtype == torch.float32
    assert np.array_equal(found.reshape(24, -1).numpy(), expected)


def test_columns_of_several_types_take_the_wider_one(shelf: Shelf) -> None:
    columns = {"a": pa.array([1, 2] * 6, pa.int8()), "b": pa.array([0.5] * 12, pa.float32()), "c": [True, False] * 6}
    artifact = shelf.put_table("p", columns | {"label": [0, 1] * 6})
    samples = shelf.load("parquet", {"files": artifact, "inputs": ["a", "b", "c"]}).train.samples
    assert samples.raw[:2].tolist() == [[1.0, 0.5, 1.0], [2.0, 0.5, 0.0]]


REFUSED: list[tuple[dict[str, Any], list[str] | str, type[StillhouseError], str]] = [
    ({"x": [[1, 2], [3]]}, "x", UnusableColumnError, "list in row 1 .* has 1 values, and the one in row 0 has 2"),
    ({"x": [[1.0], None]}, "x", MissingValuesError, "row 1 has no value in column `x`"),
    ({"x": [[1.0], [None]]}, "x", MissingValuesError, "no value"),
    ({"x": pa.array([[], []], pa.list_(pa.int8()))}, "x", UnusableColumnError, "empty lists"),
    ({"x": [1.0, None]}, "x", MissingValuesError, "row 1"),
    ({"x": [1.0, float("nan")]}, "x", NonFiniteInputsError, "input 1"),
    ({"x": ["a", "b"]}, "x", UnusableColumnError, "holds string"),
    ({"x": [[["a"]], [["b"]]]}, "x", UnusableColumnError, "holds string"),
    ({"x": [1, 2], "z": [[1], [2]]}, ["x", "z"], UnusableColumnError, "`z` holds lists"),
    ({"x": pa.array([1, 2], pa.timestamp("s"))}, "x", UnusableColumnError, "timestamp"),
    ({"x": [1, 2]}, "X", UnknownColumnError, "did you mean `x`"),
    ({"x": [1, 2]}, "y", UnknownColumnError, "no column `y`"),
]


@pytest.mark.parametrize(("columns", "inputs", "failure", "told"), REFUSED)
def test_columns_that_are_no_inputs_are_told(
    shelf: Shelf, columns: dict[str, Any], inputs: Any, failure: type[StillhouseError], told: str  # noqa: ANN401 - names
) -> None:
    artifact = shelf.put_table("p", columns | {"label": [0, 1]})
    with pytest.raises(failure, match=told) as caught:
        shelf.load("parquet", {"files": artifact, "inputs": inputs})
    assert caught.value.param in {"/data/train/inputs", "/data/train"}


def test_a_fit_of_images_is_refused_for_numbers(shelf: Shelf) -> None:
    artifact = shelf.put_table("p", {"x": [[1, 2]] * 8, "label": [0, 1] * 4})
    with pytest.raises(InvalidSpecError, match="`x` holds numbers") as caught:
        shelf.load("parquet", {"files": artifact, "inputs": "x"}, image={"channels": 3})
    assert caught.value.param == "/data/image"


def test_lists_of_another_length_in_a_later_file_are_told(shelf: Shelf) -> None:
    files = [shelf.put_table(f"p{width}", {"x": [[0] * width] * 4, "label": [0, 1] * 2}) for width in (2, 3)]
    with pytest.raises(UnusableColumnError, match=r"shape \[3\] from row 4 on, and of \[2\] before"):
        shelf.load("parquet", {"files": files, "inputs": "x"})


def test_splits_of_other_shapes_are_told(shelf: Shelf) -> None:
    one, other = (shelf.put_table(f"p{width}", {"x": [[0] * width] * 8, "label": [0, 1] * 4}) for width in (2, 3))
    with pytest.raises(UnusableArrayError, match="unlike those of the training split") as caught:
        shelf.load("parquet", {"files": one, "inputs": "x"}, test={"files": other, "inputs": "x"})
    assert caught.value.param == "/data/test"


@pytest.mark.parametrize(
    ("column", "labels", "mask"),
    [
        (pa.array([0, 1, 2, 1] * 2, pa.uint8()), [0, 1, 2, 1] * 2, None),
        ([True, False] * 4, [1, 0] * 4, None),
        ([0.0, 1.0, 2.0, 1.0] * 2, [0, 1, 2, 1] * 2, None),
        (["dog", "cat", "cow", "cat"] * 2, [2, 0, 1, 0] * 2, None),
        (pa.array(["dog", "cat"] * 4).dictionary_encode(), [1, 0] * 4, None),
        (pa.array(["dog", "cat"] * 4, pa.large_string()), [1, 0] * 4, None),
        ([1, None, 0, 1] * 2, [1, 0, 0, 1] * 2, [True, False, True, True] * 2),
        ([1.0, float("nan"), 0.0, None] * 2, [1, 0, 0, 0] * 2, [True, False, True, False] * 2),
        (["b", None, "a", "b"] * 2, [1, 0, 0, 1] * 2, [True, False, True, True] * 2),
    ],
)
def test_one_column_tells_the_class_of_each_sample(
    shelf: Shelf, column: Any, labels: list[int], mask: list[bool] | None  # noqa: ANN401 - Arrow's
) -> None:
    assert labels_of(shelf, column) == (labels, mask)


def test_categories_of_several_row_groups_are_one_set(shelf: Shelf) -> None:
    names = [f"c{number % 5}" if number < 300 else f"c{number % 7}" for number in range(600)]
    artifact = shelf.put_table(
        "p", {"x": np.zeros(600), "label": pa.array(names).dictionary_encode()}, row_group_size=100
    )
    dataset = shelf.load("parquet", {"files": artifact, "inputs": "x"})
    assert dataset.label_names == [f"c{number}" for number in range(7)]
    assert dataset.train.samples.labels is not None
    assert [f"c{number}" for number in dataset.train.samples.labels.tolist()] == names


def test_a_declared_number_stands_for_no_label(shelf: Shelf) -> None:
    assert labels_of(shelf, [1, -1, 0, None] * 2, missing_label=-1) == (
        [1, 0, 0, 0] * 2, [True, False, True, False] * 2
    )


def test_names_are_those_of_the_training_split_or_the_given_ones(shelf: Shelf) -> None:
    train = shelf.put_table("p", {"x": np.zeros(8), "label": ["dog", "cat"] * 4})
    test = shelf.put_table("q", {"x": np.zeros(2), "label": ["cow", "cat"]})
    read = {"inputs": "x"}
    assert shelf.load("parquet", {"files": train} | read).label_names == ["cat", "dog"]
    with pytest.raises(UnknownLabelError, match="`cow` of sample 0 is no class; there are cat, dog") as caught:
        shelf.load("parquet", {"files": train} | read, test={"files": test} | read)
    assert caught.value.param == "/data/test"
    names = ["cow", "dog", "cat"]
    given = shelf.load("parquet", {"files": train} | read, test={"files": test} | read, label_names=names)
    assert given.label_names == names
    assert given.test is not None
    assert given.test.labels is not None
    assert given.test.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("column", "failure", "told"),
    [
        ([0.5, 1.0] * 4, UnusableLabelsError, "label 0.5 of sample 0 is no whole number"),
        ([[0], [1]] * 4, UnusableArrayError, "multi_label"),
        ([{"a": 1}] * 8, UnusableLabelsError, "no label"),
        (pa.array([None] * 8, pa.int64()), UnusableLabelsError, "no sample has a label"),
        (pa.array([None] * 8, pa.string()), UnusableLabelsError, "no sample has a label"),
        (pa.array([2**63] * 8, pa.uint64()), UnusableLabelsError, "9223372036854775808 is no class"),
        ([f"id {number}" for number in range(1500)], UnusableLabelsError, "1,500 different texts for 1,500 samples"),
    ],
)
def test_columns_that_are_no_labels_are_told(
    shelf: Shelf, column: Any, failure: type[StillhouseError], told: str  # noqa: ANN401 - Arrow's
) -> None:
    with pytest.raises(failure, match=told) as caught:
        labels_of(shelf, column)
    assert str(caught.value.param).startswith("/data/train")


def test_labels_can_be_left_out(shelf: Shelf) -> None:
    artifact = shelf.put_table("p", {"x": np.zeros(8)})
    spec = shelf.spec(
        "parquet", {"files": artifact, "inputs": "x", "labels": None},
        teacher={"kind": "checkpoint", "artifact": artifact},
    )
    from worker.engine.data import load_dataset  # noqa: PLC0415 - only here

    assert load_dataset(spec, shelf.inputs).train.samples.labels is None


def test_a_file_with_broken_metadata_is_told(shelf: Shelf) -> None:
    content = io.BytesIO()
    pa.parquet.write_table(pa.table({"x": [1.0] * 8, "label": [0, 1] * 4}), content)
    sound = content.getvalue()
    length = int.from_bytes(sound[-8:-4], "little")
    broken = [
        sound[:-1], sound[:-8 - length] + b"\xff" * length + sound[-8:], b"PAR1" + bytes(20) + b"PAR1", b"",
        sound[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1", sound[:4] + b"\xff" * 40 + sound[44:],
    ]
    for number, content_of in enumerate(broken):
        artifact = shelf.put(f"p{number}", content_of)
        with pytest.raises((MalformedParquetError, UnusableColumnError)) as caught:
            shelf.load("parquet", {"files": artifact, "inputs": "x"})
        assert str(caught.value.param).startswith("/data/train")


def test_a_footer_that_announces_another_number_of_rows_is_told(shelf: Shelf) -> None:
    path = shelf.inputs[shelf.put_table("p", {"x": [1.0] * 8, "label": [0, 1] * 4})]
    sound = path.read_bytes()
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    place = sound.index(b"\x16\x10\x19", footer) + 1  # a number of 64 bits, 8 as a zigzag, and then the row groups
    for announced in (7, 9):
        path.write_bytes(sound[:place] + bytes([2 * announced]) + sound[place + 1:])
        with pytest.raises(MalformedParquetError, match=f"announces {announced} rows") as caught:
            shelf.load("parquet", {"files": "art_p0000000000000000000", "inputs": "x"})
        assert str(caught.value.param).startswith("/data/train")


def test_text_that_is_not_utf_8_is_told(shelf: Shelf) -> None:
    label = pa.array([b"\xff", b"a"] * 4).view(pa.string())
    artifact = shelf.put_table("p", {"x": [1.0] * 8, "label": label})
    with pytest.raises(MalformedParquetError, match="UTF8"):
        shelf.load("parquet", {"files": artifact, "inputs": "x"})


def test_no_rows_are_told(shelf: Shelf) -> None:
    artifact = shelf.put_table("p", {"x": pa.array([], pa.float64()), "label": pa.array([], pa.int64())})
    with pytest.raises(EmptyDataError) as caught:
        shelf.load("parquet", {"files": artifact, "inputs": "x"})
    assert caught.value.param == "/data/train"


NAMES = [f"digit {number}" for number in range(10)]
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})


def saved(start: int, stop: int, labels: Any = LABELS) -> datasets.Dataset:  # noqa: ANN401 - numbers
    rows = {"image": ENCODED[start:stop], "label": labels[start:stop]}
    return datasets.Dataset.from_dict(rows, features=FEATURES)


def test_class_names_of_a_parquet_file_that_datasets_wrote_are_read(shelf: Shelf) -> None:
    labels = np.where(np.arange(60) % 3 == 0, -1, LABELS)
    saved(0, 60, labels).to_parquet(shelf.folder / "p.parquet")
    artifact = shelf.put("p", (shelf.folder / "p.parquet").read_bytes())
    dataset = shelf.load("parquet", {"files": artifact})
    assert dataset.label_names == NAMES
    assert dataset.train.samples.mask is not None
    assert dataset.train.samples.mask.tolist() == (labels >= 0).tolist()
    assert dataset.train.samples.labels is not None
    assert dataset.train.samples.labels.tolist() == np.maximum(labels, 0).tolist()


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": 3}}}', b"[" * 99])
def test_damaged_metadata_are_nobodys_names(shelf: Shelf, metadata: bytes) -> None:
    table = pa.table({"x": [1.0] * 8, "label": [0, 1] * 4}).replace_schema_metadata({"huggingface": metadata})
    assert shelf.load("parquet", {"files": shelf.put_table("p", table), "inputs": "x"}).label_names is None


def archive(shelf: Shelf, saving: Any, form: str = "tar", **options: Any) -> str:  # noqa: ANN401 - of `datasets`
    saving.save_to_disk(shelf.folder / "ds", **options)
    path = Path(shutil.make_archive(str(shelf.folder / "packed"), form, shelf.folder, "ds"))
    return shelf.put("hf", path.read_bytes())


@pytest.mark.parametrize("form", ["tar", "gztar", "zip"])
def test_what_datasets_saved_is_read_without_it(shelf: Shelf, form: str) -> None:
    both = datasets.DatasetDict({"train": saved(0, 40), "test": saved(40, 60)})
    artifact = archive(shelf, both, form, num_shards={"train": 3, "test": 1})
    dataset = shelf.load("hugging_face", {"artifact": artifact}, test={"artifact": artifact})
    assert dataset.label_names == NAMES
    assert dataset.test is not None
    assert np.array_equal(dataset.test.samples.raw.numpy(), IMAGES[40:])
    # Shards may lie in any order in an archive.
    raw, labels = dataset.train.samples.raw.numpy(), dataset.train.samples.labels
    assert labels is not None
    expected = sorted((image.tobytes(), label) for image, label in zip(IMAGES[:40], LABELS[:40].tolist(), strict=True))
    assert sorted((image.tobytes(), label) for image, label in zip(raw, labels.tolist(), strict=True)) == expected


def test_minus_one_of_a_class_label_is_no_label(shelf: Shelf) -> None:
    labels = np.where(np.arange(60) % 3 == 0, -1, LABELS)
    dataset = shelf.load("hugging_face", {"artifact": archive(shelf, saved(0, 60, labels))})
    assert dataset.train.samples.mask is not None
    assert dataset.train.samples.mask.tolist() == (labels >= 0).tolist()


def test_lists_and_grids_of_datasets_are_numbers(shelf: Shelf) -> None:
    features = datasets.Features({
        "grid": datasets.Array2D((2, 3), "float32"), "list": datasets.List(datasets.Value("float32"), length=6),
        "label": datasets.Value("int64"),
    })
    rows = {"grid": NUMBERS.reshape(-1, 2, 3), "list": NUMBERS, "label": [0, 1] * 12}
    artifact = archive(shelf, datasets.Dataset.from_dict(rows, features=features))
    for name in ("grid", "list"):
        raw = shelf.load("hugging_face", {"artifact": artifact, "inputs": name}).train.samples.raw
        assert np.array_equal(raw.reshape(24, 6).numpy(), NUMBERS)


INFO = json.dumps({"features": {"x": {"_type": "Value", "dtype": "int64"}}}).encode()
STATE = json.dumps({"_data_files": [{"filename": "a.arrow"}]}).encode()


def stream(**columns: Any) -> bytes:  # noqa: ANN401 - Arrow's
    content = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(content, table.schema) as writer:
        writer.write_table(table)
    return content.getvalue()


SOUND = {"state.json": STATE, "dataset_info.json": INFO, "a.arrow": stream(x=[1, 2, 3, 4])}
READ = {"inputs": "x", "labels": "x"}


@pytest.mark.parametrize(
    ("changed", "failure", "told"),
    [
        ({"a.arrow": SOUND["a.arrow"][:-60]}, MalformedDatasetError, "no sound Arrow stream"),
        ({"a.arrow": b"hello"}, MalformedDatasetError, "no sound Arrow stream"),
        ({"a.arrow": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(8)}, MalformedDatasetError, "no sound Arrow stream"),
        ({"a.arrow": None}, MalformedDatasetError, "has no `a.arrow`"),
        ({"dataset_info.json": b"{}"}, MalformedDatasetError, "damaged or missing"),
        ({"state.json": b"[" * 100_000}, MalformedDatasetError, "damaged or missing"),
        ({"state.json": None}, UnknownFolderError, "no saved split for train"),
        ({"../x": b""}, UnsafeArchiveError, "outside"),
        ({"a.arrow": stream(y=[1, 2])}, UnknownColumnError, "no column `x`"),
    ],
)
def test_what_datasets_did_not_save_is_told(
    shelf: Shelf, changed: dict[str, bytes | None], failure: type[StillhouseError], told: str
) -> None:
    files = {name: content for name, content in (SOUND | changed).items() if content is not None}
    artifact = shelf.put("hf", pack(files))
    with pytest.raises(failure, match=told) as caught:
        shelf.load("hugging_face", {"artifact": artifact, **READ})
    assert str(caught.value.param).startswith("/data/train")


def test_texts_that_lie_outside_of_their_column_are_not_read(shelf: Shelf) -> None:
    info = json.dumps({"features": {"x": 1, "s": 2}}).encode()
    sound = stream(x=range(8), s=["a", "b"] * 4)
    ends = struct.pack("<9i", *range(9))
    broken = sound.replace(ends, ends[:-4] + struct.pack("<i", 2**30))
    assert broken != sound
    for content, is_sound in ((sound, True), (broken, False)):
        artifact = shelf.put("hf", pack({"state.json": STATE, "dataset_info.json": info, "a.arrow": content}))
        if is_sound:
            assert shelf.load("hugging_face", {"artifact": artifact, "inputs": "x", "labels": "s"}).label_names
        else:
            with pytest.raises(MalformedDatasetError, match="no sound Arrow stream"):
                shelf.load("hugging_face", {"artifact": artifact, "inputs": "x", "labels": "s"})


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1:]


@pytest.mark.parametrize("broken", [flipped, lambda content, place: content[:place]])
def test_any_damage_to_a_stream_is_told_or_changes_only_numbers(
    shelf: Shelf, broken: Callable[[bytes, int], bytes]
) -> None:
    refused = 0
    for place in range(0, len(SOUND["a.arrow"]), 7):
        artifact = shelf.put("hf", pack(SOUND | {"a.arrow": broken(SOUND["a.arrow"], place)}))
        try:
            shelf.load("hugging_face", {"artifact": artifact, **READ})
        except StillhouseError:
            refused += 1
    assert refused > 10
