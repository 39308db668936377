"""Zips of torch.save, real ones and those that somebody means harm with."""

import io
import os
import pickle
import stat
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.artifacts.inspection import PytorchFacts, guess_format, inspect
from app.artifacts.inspection.pytorch import MAX_PICKLE, inspect_pytorch
from stillhouse.contract.failures import MalformedPytorchError, PickleRefusedError
from tests.fixtures.files import npy, npz, safetensors

MODEL = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def saved(content: object, **options: Any) -> bytes:  # noqa: ANN401 - of torch.save
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def zipped(members: Mapping[str, bytes], **options: Any) -> bytes:  # noqa: ANN401 - of ZipFile
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def facts_of(content: bytes) -> PytorchFacts:
    facts = inspect(io.BytesIO(content), len(content), "pytorch")
    assert isinstance(facts, PytorchFacts)
    return facts


def full_checkpoint() -> dict[str, object]:
    optimizer = torch.optim.AdamW(MODEL.parameters())
    MODEL(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3, "best": torch.tensor(0.5), "state_dict": MODEL.state_dict(), "optimizer": optimizer.state_dict(),
        "shape": torch.Size([3]), "dtype": torch.float32, "device": torch.device("cpu"), "seen": {1, 2},
        "half": torch.ones(2).half(), "brain": torch.ones(2).bfloat16(), "flag": torch.tensor([True]),
        "parameter": nn.Parameter(torch.ones(2)), "none": None, "long": 2**40, "loss": 0.1,
    }


def test_a_real_checkpoint_is_accepted_with_its_number_of_tensors() -> None:
    assert facts_of(saved(MODEL.state_dict())) == PytorchFacts(num_tensors=7)
    assert facts_of(saved(OrderedDict(MODEL.state_dict()))).as_json() == {"format": "pytorch", "num_tensors": 7}


def test_what_training_code_saves_beside_the_weights_is_accepted_as_torch_accepts_it() -> None:
    content = saved(full_checkpoint())
    assert facts_of(content).num_tensors > 7
    torch.load(io.BytesIO(content), weights_only=True)


@pytest.mark.parametrize("dtype", [
    torch.float64, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool, torch.uint16,
    torch.float8_e4m3fn,
])
def test_tensors_of_every_plain_type_are_accepted(dtype: torch.dtype) -> None:
    assert facts_of(saved({"w": torch.ones(2).to(dtype)})).num_tensors == 1


class Bomb:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch made",))


class Huge:
    """Unpickled, it takes a terabyte."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (bytearray, (2**40,))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"w": torch.ones(1), "bomb": Bomb()}, "imports posix.system"),
        ({"w": torch.ones(1), "huge": Huge()}, "imports __builtin__.bytearray"),
        (MODEL, "imports torch.nn.modules"),
        ({"w": torch.ones(1), "args": __import__("argparse").Namespace(lr=1)}, "imports argparse.Namespace"),
        ({"w": torch.eye(3).to_sparse()}, "imports torch._utils._rebuild_sparse_tensor"),
        ({"w": torch.ones(2, device="meta")}, "imports torch._utils._rebuild_meta_tensor"),
        ({"w": torch.ones(1), "bytes": b"x"}, "imports _codecs.encode"),
    ],
)
def test_an_import_that_weights_do_not_need_is_refused_by_name(content: object, told: str) -> None:
    with pytest.raises(PickleRefusedError, match=told):
        facts_of(saved(content))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickles_that_torch_itself_does_not_read_as_plain_weights_are_refused(protocol: int) -> None:
    content = saved({"w": torch.ones(1), "bomb": Bomb()}, pickle_protocol=protocol)
    with pytest.raises(PickleRefusedError):
        facts_of(content)


@pytest.mark.parametrize("payload", [
    b"cos\nsystem\n(S'touch made'\ntR.",
    b"\x80\x02cposix\nsystem\nX\x0a\x00\x00\x00touch made\x85R.",
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch made\x85R.",
    b"(S'touch made'\nios\nsystem\n.",
    b"\x80\x02\x82\x01.",
    b"\x80\x02ccollections\nOrderedDict\n" + b"\x8c",
    b"",
    b"not a pickle",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\ncos\nsystem\n.",
])
def test_no_instruction_of_a_hostile_pickle_gets_past(
    payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((PickleRefusedError, MalformedPytorchError)):
        facts_of(zipped({"a/data.pkl": payload, "a/version": b"3\n", "a/data/0": b"0000"}))
    assert list(tmp_path.iterdir()) == []


def changed(change: Callable[[dict[str, bytes]], object], **options: Any) -> bytes:  # noqa: ANN401 - of ZipFile
    content = members(saved(MODEL.state_dict()))
    change(content)
    return zipped(content, **options)


def two_folders(content: dict[str, bytes]) -> None:
    content["other/data.pkl"] = content["archive/data.pkl"]


def with_link() -> bytes:
    content = io.BytesIO(saved(MODEL.state_dict()))
    with zipfile.ZipFile(content, "a") as archive:
        link = zipfile.ZipInfo("archive/data/99")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


def overlapping() -> bytes:
    """Many entries of the directory that point at the same bytes."""
    content = bytearray(zipped({"a/data.pkl": b"x" * 60_000} | {f"a/data/{number}": b"" for number in range(50)}))
    at = content.find(b"PK\x01\x02")
    first = bytes(content[at + 20:at + 28])  # packed and unpacked size of the first entry
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 20:at + 28] = first
    return bytes(content)


WRONG: dict[str, tuple[bytes, str]] = {
    "not a zip": (safetensors(), "does not begin as a zip"),
    "cut short": (saved(MODEL.state_dict())[:-30], "not a sound zip"),
    "a zip of arrays": (npz({"x": npy([1])}), "one folder with a data.pkl"),
    "a zip of texts": (zipped({"a.txt": b"1", "b.txt": b"2"}), "one folder with a data.pkl"),
    "a zip in a zip": (zipped({"model.pt": saved(MODEL.state_dict())}), "one folder with a data.pkl"),
    "no pickle": (changed(lambda content: content.pop("archive/data.pkl")), "one folder with a data.pkl"),
    "two folders": (changed(two_folders), "one folder with a data.pkl"),
    "out of its folder": (changed(lambda content: content.update({"archive/../../x": b""})), "leaves its folder"),
    "a link": (with_link(), "not a plain file"),
    "packed": (changed(lambda _: None, compression=zipfile.ZIP_DEFLATED), "packed or encrypted"),
    "a bomb of zeros": (
        changed(lambda content: content.update({"archive/data/9": bytes(2**24)}), compression=zipfile.ZIP_DEFLATED),
        "packed or encrypted",
    ),
    "overlapping": (overlapping(), "overlap"),
    "a huge pickle": (
        zipped({"a/data.pkl": b"\x80\x02" + b"N" * MAX_PICKLE}), f"this service reads up to {MAX_PICKLE}",
    ),
    "no tensors": (saved({"epoch": 3}), "holds no tensors"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_torch_does_not_write_is_refused_with_its_reason(case: str) -> None:
    content, told = WRONG[case]
    with pytest.raises(MalformedPytorchError, match=told):
        facts_of(content)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_refused_as_the_program_that_it_is() -> None:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    with pytest.raises(PickleRefusedError, match="TorchScript"):
        facts_of(file.getvalue())


def test_a_zip_inside_a_tensor_is_no_matter() -> None:
    inner = torch.frombuffer(bytearray(saved({"bomb": Bomb(), "w": torch.ones(1)})), dtype=torch.uint8)
    assert facts_of(saved({"w": inner})).num_tensors == 1


@pytest.mark.parametrize("protocol", range(6))
def test_files_of_old_and_bare_pickles_stay_refused(protocol: int) -> None:
    old = saved(MODEL.state_dict(), _use_new_zipfile_serialization=False)
    for content in (old, pickle.dumps({"w": [1.0]}, protocol)):
        with pytest.raises(PickleRefusedError):
            facts_of(content)


def test_the_format_is_guessed() -> None:
    assert guess_format(io.BytesIO(saved(MODEL.state_dict())), "teacher") == "pytorch"
    assert guess_format(io.BytesIO(safetensors()), "teacher") == "safetensors"


def test_nothing_bigger_than_the_limits_is_read() -> None:
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            self.largest = max(self.largest, len(content))
            return content

    content = saved({"w": torch.zeros(4 * 2**20)})
    file = Counting(content)
    inspect_pytorch(file, len(content))
    assert file.largest < 2**20
