"""Bundles that were damaged or made to do harm."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stillhouse
from stillhouse.cli.commands import app
from stillhouse.contract.failures import LibraryMissingError
from stillhouse.contract.spec import Export, Timm
from stillhouse.models.bundle import InvalidBundleError
from tests.fixtures.bundles import Members, edit_json, resign, rewrite
from tests.fixtures.results import make_trained


def set_version(members: Members, version: int) -> None:
    manifest = json.loads(members["manifest.json"]) | {"bundle_version": version}
    members["manifest.json"] = json.dumps(manifest).encode()


def flip(members: Members, name: str) -> None:
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def huge(members: Members) -> None:
    config = json.loads(members["config.json"])
    config["architecture"]["channels"] = [65_536, 65_536]
    resign(members, "config.json", json.dumps(config).encode())


CHANGES: dict[str, tuple[Callable[[Members], object], str]] = {
    "weights changed": (lambda m: flip(m, "model.safetensors"), "model.safetensors was changed or damaged"),
    "page changed": (lambda m: flip(m, "report.html"), "report.html was changed or damaged"),
    "labels longer": (lambda m: m.update({"labels.json": m["labels.json"] + b" "}), "manifest says"),
    "labels missing": (lambda m: m.pop("labels.json"), "lacks labels.json"),
    "no manifest": (lambda m: m.pop("manifest.json"), "not a Stillhouse bundle"),
    "manifest is no json": (lambda m: m.update({"manifest.json": b"{"}), "not a readable bundle"),
    "unlisted member": (lambda m: m.update({"extra.txt": b"x"}), "extra.txt: not in the manifest"),
    "newer format": (lambda m: set_version(m, 2), "upgrade"),
    "traversal": (lambda m: resign(m, "../evil.json", b"x"), "only plain names"),
    "absolute": (lambda m: resign(m, "/etc/evil", b"x"), "only plain names"),
    "folder": (lambda m: resign(m, "a/b", b"x"), "only plain names"),
    "too many": (lambda m: m.update({f"f{i}": b"x" for i in range(70)}), "at most 64"),
    "labels of another count": (lambda m: edit_json(m, "labels.json", label_names=["a", "b"]), "10 outputs"),
    "unknown architecture": (lambda m: edit_json(m, "config.json", architecture={"kind": "os.system"}), "do not fit"),
    "incomplete architecture": (lambda m: edit_json(m, "config.json", architecture={"kind": "mlp"}), "leaves out"),
    "enormous architecture": (huge, "of another shape"),
    "weights are no safetensors": (lambda m: resign(m, "model.safetensors", b"\x80\x04\x95."), "do not fit"),
    "strange preprocessing": (lambda m: edit_json(m, "preprocessing.json", layout="spiral"), "do not fit"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_bundle_is_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    change, told = CHANGES[name]
    with pytest.raises(InvalidBundleError, match=told):
        stillhouse.load(rewrite(bundle, tmp_path / "changed.zip", change))
    assert [path.name for path in tmp_path.iterdir()] == ["changed.zip"]  # nothing was unpacked


def test_an_unchanged_copy_is_accepted(bundle: Path, tmp_path: Path) -> None:
    assert stillhouse.load(rewrite(bundle, tmp_path / "copy.zip", lambda _: None)).label_names[3] == "3"


def test_compressed_weights_are_refused_unread(bundle: Path, tmp_path: Path) -> None:
    bomb = rewrite(bundle, tmp_path / "bomb.zip", lambda _: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidBundleError, match="stored without compression"):
        stillhouse.load(bomb)


def test_a_text_that_grows_beyond_its_bound_is_refused_unread(bundle: Path, tmp_path: Path) -> None:
    def grow(members: Members) -> None:
        members["report.json"] = b" " * (64 * 1024 * 1024 + 1)

    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    grow(members)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        for name, content in members.items():
            kind = zipfile.ZIP_DEFLATED if name == "report.json" else zipfile.ZIP_STORED
            archive.writestr(name, content, compress_type=kind)
    with pytest.raises(InvalidBundleError, match="larger than"):
        stillhouse.load(tmp_path / "bomb.zip")


def test_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    target = rewrite(bundle, tmp_path / "link.zip", lambda _: None)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidBundleError, match="not a plain file"):
        stillhouse.load(target)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile, on writing what is to be refused
def test_two_members_of_one_name_are_refused(bundle: Path, tmp_path: Path) -> None:
    target = rewrite(bundle, tmp_path / "twice.zip", lambda _: None)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("labels.json", "{}")
    with pytest.raises(InvalidBundleError, match="same name"):
        stillhouse.load(target)


def test_a_truncated_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(InvalidBundleError, match="not a readable bundle"):
        stillhouse.load(tmp_path / "cut.zip")


def test_a_missing_bundle_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stillhouse.load(tmp_path / "nowhere.zip")


LOADED = """
import json, sys
import stillhouse
first = sorted(set(sys.modules) & {"app", "worker", "torch", "numpy"})
stillhouse.load(sys.argv[1])
print(json.dumps([first, sorted(set(sys.modules) & {"app", "worker", "torch", "onnxruntime", "matplotlib"})]))
"""


def test_a_bundle_of_a_missing_library_tells_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(tmp_path, architecture=Timm(name="resnet10t"))
    plain = trained.spec.model_copy(update={"export": Export(formats=["safetensors"])})
    replace(trained, spec=plain).export(tmp_path / "scratch")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LibraryMissingError, match=r"pip install 'stillhouse\[vision\]'"):
        stillhouse.load(tmp_path / "scratch/export/student.zip")
    told = CliRunner().invoke(app, ["predict", str(tmp_path / "scratch/export/student.zip"), __file__])
    assert told.exit_code == 1
    assert "pip install 'stillhouse[vision]'" in " ".join(told.output.split())


def test_loading_needs_torch_only_when_used_and_never_the_server(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", LOADED, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert json.loads(done.stdout or "null") == [[], ["torch"]], done.stderr
