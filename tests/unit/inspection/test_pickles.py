import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from app.artifacts.inspection import guess_format, inspect
from stillhouse.contract.failures import MalformedIdxError, MalformedSafetensorsError, PickleRefusedError
from stillhouse.contract.resources import UploadFormat
from tests.fixtures.files import idx, npy, npz, safetensors, with_header

WEIGHTS = {"w": [1.0] * 100, "b": "text"}


class Opened:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("opened"),))  # type: ignore[return-value]


def refuse(content: bytes, upload_format: UploadFormat = "safetensors") -> None:
    with pytest.raises(PickleRefusedError):
        inspect(io.BytesIO(content), len(content), upload_format)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("upload_format", ["safetensors", "idx", "npz"])
def test_a_bare_pickle_of_any_protocol_is_told_as_one(protocol: int, upload_format: UploadFormat) -> None:
    refuse(pickle.dumps(WEIGHTS, protocol), upload_format)


def test_a_checkpoint_of_torch_is_told_as_a_pickle(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "model.pt")
    refuse((tmp_path / "model.pt").read_bytes())
    refuse((tmp_path / "model.pt").read_bytes(), "npz")


def test_an_old_checkpoint_of_torch_is_told_as_a_pickle(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    refuse((tmp_path / "model.pt").read_bytes())


def test_nothing_is_opened_while_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        refuse(pickle.dumps(Opened(), protocol))
    refuse(npz({"x": npy([1], "|O", data=pickle.dumps(Opened()))}), "npz")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_with_a_pickle_beside_arrays_is_refused() -> None:
    content = io.BytesIO(npz({"x": npy([1])}))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("data.pkl", pickle.dumps(WEIGHTS))
    refuse(content.getvalue(), "npz")


def test_a_header_whose_length_begins_like_a_pickle_is_no_pickle() -> None:
    # 0x0280 bytes of header: the file begins with 80 02, as protocol 2 does.
    content = with_header(safetensors({"w": []})[8:-4].ljust(0x280), bytes(4))
    assert content.startswith(b"\x80\x02")
    inspect(io.BytesIO(content), len(content), "safetensors")


def test_other_nonsense_is_not_called_a_pickle() -> None:
    with pytest.raises(MalformedSafetensorsError):
        inspect(io.BytesIO(b"just a text, with a full stop."), 30, "safetensors")
    with pytest.raises(MalformedIdxError):
        inspect(io.BytesIO(bytes(100)), 100, "idx")


def test_the_format_of_data_is_guessed() -> None:
    assert guess_format(io.BytesIO(npz({"x": npy([1])})), "data") == "npz"
    assert guess_format(io.BytesIO(idx([1])), "data") == "idx"
    assert guess_format(io.BytesIO(safetensors()), "teacher") == "safetensors"
