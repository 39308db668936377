"""Whole jobs on images in folders and on a table, up to a model that answers for photos and rows."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import stillhouse
from stillhouse.cli.commands import app
from stillhouse.contract.events import Finished
from stillhouse.models.answers import Answer, Prediction
from stillhouse.predict import UnusableInputError, predict_file
from tests.fixtures.archives import encoded, pack
from tests.fixtures.datasets import Shelf
from tests.fixtures.lessons import never
from worker.engine import pipeline

SMALL: dict[str, Any] = {
    "training": {"epochs": 30, "batch_size": 16}, "control": False, "export": {"formats": ["safetensors"]},
}


def bundle_of(shelf: Shelf, kind: str, train: dict[str, Any], **sections: Any) -> Path:  # noqa: ANN401 - any JSON
    scratch = shelf.folder / "scratch"
    scratch.mkdir()
    spec = shelf.spec(kind, train, **(SMALL | sections))
    *_, last = pipeline.run(spec, shelf.inputs, scratch, checkpoint=None, device="cpu", requested=never)
    assert isinstance(last, Finished)
    return scratch / "export" / "student.zip"


def photo(dark: bool, height: int, width: int, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 100, (height, width, 3))
    return Image.fromarray((noise + (0 if dark else 150)).astype(np.uint8))


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shelf]:
    shelf = Shelf(tmp_path_factory.mktemp("images"))
    files = {}
    for number in range(48):
        content = io.BytesIO()
        photo(number % 2 == 0, 20 + number, 60 - number, number).save(content, "JPEG" if number % 3 else "PNG")
        files[f"{('dark', 'light')[number % 2]}/{number}.{'jpg' if number % 3 else 'png'}"] = content.getvalue()
    artifact = shelf.put("photos", pack(files, "tar.gz"))
    return bundle_of(
        shelf, "images", {"artifact": artifact}, data={"image": {"size": [8, 6], "channels": 3}}
    ), shelf


def chosen(found: Sequence[Answer]) -> list[Prediction]:
    """Answers of a classification."""
    assert all(isinstance(one, Prediction) for one in found)
    return [one for one in found if isinstance(one, Prediction)]


def test_a_model_of_photos_answers_for_photos_of_any_size(of_images: tuple[Path, Shelf], tmp_path: Path) -> None:
    bundle, _ = of_images
    model = stillhouse.load(bundle)
    dark, light = photo(dark=True, height=90, width=40, seed=100), photo(dark=False, height=33, width=50, seed=101)
    dark.save(tmp_path / "dark.png")
    batch: list[Any] = [dark, np.asarray(light), tmp_path / "dark.png", encoded(np.asarray(light))]
    found = chosen(model.predict(batch))
    assert [one.index for one in found] == [0, 1, 0, 1]
    # The bits of an answer may depend on how many are asked for at once.
    alone = [chosen(model.predict(one))[0].probability for one in batch]
    assert alone == pytest.approx([one.probability for one in found])
    answers = predict_file(bundle, tmp_path / "dark.png")
    assert answers.predictions == model.predict(dark)
    assert answers.note == "the picture was resized from 40x90 to 6x8"


def test_the_command_line_answers_for_a_photo(of_images: tuple[Path, Shelf], tmp_path: Path) -> None:
    bundle, _ = of_images
    photo(dark=False, height=90, width=40, seed=1).convert("L").save(tmp_path / "light.png")
    done = CliRunner().invoke(app, ["predict", str(bundle), str(tmp_path / "light.png"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["predictions"][0]["index"] == 1


@pytest.mark.parametrize(
    ("content", "told"), [(b"no image", "no image in"), (b"\x89PNG\r\n\x1a\n", "cannot be used")]
)
def test_what_is_no_photo_is_told(
    of_images: tuple[Path, Shelf], tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(UnusableInputError, match=told):
        predict_file(of_images[0], tmp_path / "photo.png")


COLUMNS = ["since", "city", "note", "label"]


def rows(count: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        is_late, city = bool(random.integers(2)), random.choice(["Rome", "Oslo"])
        since = 1.7e9 + is_late * 100 + random.integers(20)
        made.append([f"{since:.0f}" if random.random() > 0.1 else "", city, "x", "late" if is_late else "early"])
    return made


@pytest.fixture(scope="module")
def of_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = Shelf(tmp_path_factory.mktemp("rows"))
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *rows(200, 0)])
    artifact = shelf.put("rows", text.getvalue().encode())
    return bundle_of(shelf, "csv", {"artifact": artifact}, data={"ignore": ["note"], "missing": "mean"})


def test_a_model_of_a_table_answers_for_rows(of_rows: Path, tmp_path: Path) -> None:
    model = stillhouse.load(of_rows)
    raw: list[Any] = [
        {"since": 1.7e9 + 5, "city": "Rome"}, {"since": "1700000110", "city": "Bern"}, {"since": None, "city": None},
    ]
    found = chosen(model.predict(raw))
    assert [one.index for one in found[:2]] == [0, 1]
    assert chosen(model.predict(raw[0]))[0].probability == pytest.approx(found[0].probability)
    path = tmp_path / "rows.csv"
    path.write_text("city,more,since\nRome,?,1700000005\nBern,?,1700000110\n,?,\n")
    assert predict_file(of_rows, path).predictions == found
    encoded_rows = torch.from_numpy(model.preprocessing.table.encode(raw))  # type: ignore[union-attr]
    assert model.predict(encoded_rows) == found
    done = CliRunner().invoke(app, ["predict", str(of_rows), str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert [one["index"] for one in json.loads(done.stdout)["predictions"]] == [one.index for one in found]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"city\nRome\n", "no column 'since'"), (b"since,city\n1,Rome,2\n", "line 2 does not have 2 cells"),
        (b"since,city\n1\n", "line 2 does not have 2 cells"), (b"since,city\nsoon,Rome\n", "no number"),
        (b"since,city\n1,\xff\n", "decode"),
    ],
)
def test_rows_that_do_not_fit_are_told(of_rows: Path, tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "rows.csv").write_bytes(text)
    with pytest.raises(UnusableInputError, match=told):
        predict_file(of_rows, tmp_path / "rows.csv")
