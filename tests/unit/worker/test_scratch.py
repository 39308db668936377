"""Files leave a trainer's folder only if they are plain; folders go when nobody holds them."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fixtures.waiting import wait_until
from worker.orders import ProtocolError
from worker.scratch import HEAD_BYTES, TAIL_BYTES, GoneError, TrainerLog, attempt_folder, lock, produced, sweep


def test_a_plain_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model").write_bytes(b"weights")
    with produced(tmp_path, "deep/model") as file:
        assert file.read() == b"weights"


def test_a_missing_file_is_gone(tmp_path: Path) -> None:
    with pytest.raises(GoneError), produced(tmp_path, "model"):
        pass


def _symlink(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def _hardlink(path: Path, secret: Path) -> None:
    path.hardlink_to(secret)


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_symlink, _hardlink, _fifo, _device])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "scratch"
    secret.write_bytes(b"secret")
    folder.mkdir()
    make(folder / "model", secret)
    with pytest.raises(ProtocolError), produced(folder, "model"):
        pass


def test_a_folder_on_the_way_may_not_be_a_link(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "scratch"
    outside.mkdir()
    folder.mkdir()
    (outside / "model").write_bytes(b"secret")
    (folder / "deep").symlink_to(outside)
    with pytest.raises(ProtocolError), produced(folder, "deep/model"):
        pass


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (tmp_path / "deep").mkdir()
    for name in ("model", "deep/model", "deep"):
        with pytest.raises(ProtocolError), produced(tmp_path, name):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_log_is_handed_over_when_it_grew(tmp_path: Path) -> None:
    printed, told = TrainerLog(tmp_path / "log"), list[tuple[str, bool]]()

    def write(text: str, is_truncated: bool) -> None:
        told.append((text, is_truncated))

    printed.save(write)
    printed.path.write_bytes(b"one \xff\n")
    printed.save(write)
    printed.save(write)
    assert told == [("one \ufffd\n", False)]
    printed.close()


def test_a_log_that_could_not_be_written_is_handed_over_again(tmp_path: Path) -> None:
    printed, told = TrainerLog(tmp_path / "log"), list[str]()
    printed.path.write_text("one")

    def fail(_text: str, _is_truncated: bool) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        printed.save(fail)
    printed.save(lambda text, _: told.append(text))
    assert told == ["one"]
    printed.close()


def test_the_middle_of_a_long_log_is_left_out(tmp_path: Path) -> None:
    printed, told = TrainerLog(tmp_path / "log"), list[tuple[str, bool]]()
    printed.path.write_text("a" * HEAD_BYTES + "b" * 1000 + "c" * TAIL_BYTES)
    printed.save(lambda text, is_truncated: told.append((text, is_truncated)))
    ((text, is_truncated),) = told
    assert is_truncated
    assert text == "a" * HEAD_BYTES + "\n[... 1000 bytes left out ...]\n" + "c" * TAIL_BYTES
    printed.close()


def test_what_a_trainer_puts_in_place_of_its_log_is_not_read(tmp_path: Path) -> None:
    secret, printed, told = tmp_path / "secret", TrainerLog(tmp_path / "log"), list[str]()
    secret.write_text("secret")
    printed.path.write_text("mine")
    printed.path.unlink()
    printed.path.symlink_to(secret)
    printed.save(lambda text, _: told.append(text))
    assert told == ["mine"]
    printed.close()
    assert secret.exists()


def test_a_sweep_takes_what_nobody_holds(tmp_path: Path) -> None:
    with attempt_folder(tmp_path, "held") as (held, _):
        (tmp_path / "left").mkdir()
        (tmp_path / "left" / "file").touch()
        (tmp_path / "left.log").touch()
        orphaned = tmp_path / "orphaned"
        orphaned.mkdir()
        descriptor = lock(orphaned)
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"held", "held.log", "orphaned"}
        assert held.is_dir()
        os.close(descriptor)
    assert {path.name for path in tmp_path.iterdir()} == {"orphaned"}


def test_the_folder_stays_until_the_last_process_has_left_it(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def attempt() -> None:
        with attempt_folder(tmp_path, "job-1"):
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(attempt)
        assert entered.wait(10)
        held = lock(tmp_path / "job-1")
        leave.set()
        wait_until(lambda: not (tmp_path / "job-1.log").exists())
        assert not ending.done()
        assert (tmp_path / "job-1").exists()
        os.close(held)
        ending.result(timeout=10)
    assert not (tmp_path / "job-1").exists()
