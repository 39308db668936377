"""What code in a trainer can reach. Where it could hold by chance, the same succeeds without."""

import errno
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from stillhouse.contract.events import Finished, Noted
from tests.fixtures.orders import order, trainer, words
from worker import sandbox
from worker.sandbox import Confinement

pytestmark = pytest.mark.usefixtures("forkserver")

DENIED = "PermissionError"
ROOT = Path(__file__).parents[3]


def attempt(folder: Path, *tries: tuple[object, ...], **more: object) -> list[Any]:
    """What came of each try, in a trainer of its own."""
    folder.mkdir(exist_ok=True)
    ordered = order(folder, engine="tests.fixtures.prying_engine", **more)
    (ordered.scratch / "try.json").write_text(json.dumps(tries))
    with trainer(ordered) as child:
        told = list(words(child))
    assert isinstance(told[-1], Finished), (folder / "log").read_text()
    return [event.data["result"] for event in told if isinstance(event, Noted)]


def attempt_freely(folder: Path, *tries: tuple[object, ...]) -> list[Any]:
    """The same without a sandbox."""
    return attempt(folder, *tries, sandbox="off")


@pytest.fixture
def other() -> Iterator[tuple[int, str]]:
    """Another process of the same user, whose environment and memory hold a secret; its pid and the secret."""
    secret = secrets.token_hex(16)
    code = "import os, sys; held = os.environ['SECRET'] * 2; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={"SECRET": secret}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid, secret
        process.kill()


@pytest.fixture
def outside(tmp_path: Path) -> tuple[Path, str]:
    """A folder as a worker has around a trainer, with a secret in each of its files; and the secret."""
    secret, folder = secrets.token_hex(16), tmp_path / "home"
    for name in ("stillhouse.db", "token", "blobs/ab/blob", "cache/digest", "scratch/job_2-1/checkpoint", "job_2.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the secret: {secret}")
    return folder, secret


def test_no_file_of_the_worker_can_be_read(tmp_path: Path, outside: tuple[Path, str]) -> None:
    folder, secret = outside
    paths = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    tries = [("read", path) for path in paths]
    assert attempt(tmp_path / "in", *tries) == [DENIED] * len(paths)
    assert attempt_freely(tmp_path / "free", *tries) == [f"the secret: {secret}"] * len(paths)


def test_a_search_of_everything_finds_no_secret(
    tmp_path: Path, outside: tuple[Path, str], other: tuple[int, str]
) -> None:
    folder, in_files = outside
    pid, in_process = other
    assert attempt(tmp_path / "in", ("search", "/", in_files), ("search", "/proc", in_process)) == [[], []]
    found = attempt_freely(tmp_path / "free", ("search", str(folder), in_files), ("search", f"/proc/{pid}", in_process))
    assert len(found[0]) == 6
    assert f"/proc/{pid}/environ" in found[1]


def test_no_name_of_a_file_of_the_worker_can_be_listed(tmp_path: Path, outside: tuple[Path, str]) -> None:
    folder, _ = outside
    places = [str(folder), str(folder / "blobs"), str(ROOT), str(tmp_path), "/", "/tmp", "/home", "/proc"]  # noqa: S108
    tries = [("list", place) for place in places]
    assert attempt(tmp_path / "in", *tries) == [DENIED] * len(tries)


def test_another_process_s_memory_cannot_be_read(tmp_path: Path, other: tuple[int, str]) -> None:
    assert attempt(tmp_path / "in", ("memory", *other)) == [DENIED]
    assert attempt_freely(tmp_path / "free", ("memory", *other)) == [True]


@pytest.mark.parametrize("name", ["environ", "mem", "maps", "cmdline", "status", "fd", "root", "cwd", "task"])
def test_nothing_of_another_process_can_be_opened(tmp_path: Path, other: tuple[int, str], name: str) -> None:
    assert attempt(tmp_path / "in", ("open_proc", other[0], name)) == [DENIED]


def test_another_process_cannot_be_traced(tmp_path: Path, other: tuple[int, str]) -> None:
    tries = [("ptrace", other[0]), ("call", "process_vm_readv"), ("call", "pidfd_getfd")]
    assert attempt(tmp_path / "in", *tries) == [DENIED] * 3


def test_neither_supervisor_nor_forkserver_can_be_signalled(tmp_path: Path, other: tuple[int, str]) -> None:
    server = vars(vars(forkserver)["_forkserver"])["_forkserver_pid"]
    pids = [os.getpid(), server, other[0]]
    tries = [(how, pid) for pid in pids for how in ("signal", "signal_by_descriptor")]
    assert attempt(tmp_path / "in", *tries) == [DENIED] * 6
    assert attempt_freely(tmp_path / "free", *tries) == ["sent"] * 6


def test_another_process_cannot_be_limited(tmp_path: Path, other: tuple[int, str]) -> None:
    assert attempt(tmp_path / "in", ("limit_other", other[0])) == [DENIED]
    assert attempt_freely(tmp_path / "free", ("limit_other", other[0])) == ["limited"]


def test_nothing_outside_can_be_written(tmp_path: Path, outside: tuple[Path, str]) -> None:
    folder, secret = outside
    kept = str(folder / "stillhouse.db")
    own = str(tmp_path / "in" / "scratch" / "own")
    tries: list[tuple[object, ...]] = [
        ("write", kept), ("append", kept), ("truncate", kept), ("remove", kept), ("open_up", kept), ("age", kept),
        ("write", str(folder / "new")), ("make_folder", str(folder / "new")), ("move", kept, own),
        ("write", str(tmp_path / "in" / "log")), ("write", str(ROOT / "worker" / "new.py")),
        ("write", f"/tmp/{secret}"), ("write", f"/dev/shm/{secret}"), ("write", f"{sys.prefix}/{secret}"),  # noqa: S108
    ]
    results = attempt(tmp_path / "in", *tries, ("link", own, kept))
    assert set(results) <= {DENIED, "OSError"}, results  # linking across folders is told as another file system
    assert (folder / "stillhouse.db").read_text() == f"the secret: {secret}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "blobs", "cache", "job_2.log", "scratch", "stillhouse.db", "token",
    ]


def test_its_own_folder_can_be_written(tmp_path: Path) -> None:
    own = tmp_path / "in" / "scratch"
    deep = str(own / "a" / "b")
    tries = [("make_folder", str(own / "a")), ("write", deep), ("move", deep, str(own / "c"))]
    *results, temporary = attempt(tmp_path / "in", *tries, ("temporary",))
    assert results == ["made", "written", "moved"]
    assert Path(temporary).is_relative_to(own)


def test_inputs_and_what_is_lent_can_be_read_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "lent").mkdir()
    for name in ("input", "other", "lent/shard"):
        (tmp_path / name).write_text(name)
    given, lent = str(tmp_path / "input"), str(tmp_path / "lent" / "shard")
    results = attempt(
        tmp_path / "in", ("read", given), ("read", lent), ("read", str(tmp_path / "other")), ("append", given),
        ("append", lent), inputs={"art_1": given}, lent=tmp_path / "lent",
    )
    assert results == ["input", "lent/shard", DENIED, DENIED, DENIED]


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, Any]]:
    """Sockets that listen beside a trainer, by kind: where each is."""
    name = f"\0{secrets.token_hex(8)}"
    with ExitStack() as stack:
        listening = {
            kind: stack.enter_context(socket.socket(family)) for kind, family in
            (("unix", socket.AF_UNIX), ("abstract", socket.AF_UNIX), ("tcp", socket.AF_INET))
        }
        listening["unix"].bind(str(folder / "broker.sock"))
        listening["abstract"].bind(name)
        listening["tcp"].bind(("127.0.0.1", _fixed_port()))
        for server in listening.values():
            server.listen()
        yield {
            "unix": str(folder / "broker.sock"), "abstract": name.replace("\0", "@"),
            "tcp": listening["tcp"].getsockname()[1],
        }


def _fixed_port() -> int:
    """A free port of those that servers choose for themselves."""
    for port in range(20_000, 30_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                return port
    raise AssertionError("no free port")


@pytest.mark.parametrize("kind", ["unix", "abstract", "tcp"])
def test_no_socket_can_be_reached(tmp_path: Path, kind: str) -> None:
    with servers(tmp_path) as where:
        tries = ("tcp", where["tcp"]) if kind == "tcp" else ("unix", where[kind])
        assert attempt(tmp_path / "in", tries) == [DENIED]
        assert attempt_freely(tmp_path / "free", tries) == ["connected"]


def test_the_forkserver_cannot_be_reached(tmp_path: Path) -> None:
    address = vars(vars(forkserver)["_forkserver"])["_forkserver_address"]
    assert attempt(tmp_path / "in", ("unix", address.replace("\0", "@"))) == [DENIED]
    attempt(tmp_path / "next")  # it still makes trainers


def test_nothing_is_sent_or_heard_in_other_ways(tmp_path: Path) -> None:
    tries = [("udp",), ("listen", 0), ("pair_to", str(tmp_path / "log.sock"))]
    assert attempt(tmp_path / "in", *tries) == [DENIED] * 3


def test_ranks_reach_each_other_and_no_server(tmp_path: Path) -> None:
    with servers(tmp_path) as where:
        tries: list[tuple[object, ...]] = [
            ("tcp_to_oneself",), ("tcp", where["tcp"]), ("listen", where["tcp"] + 1), ("udp",), ("unix", where["unix"]),
        ]
        assert attempt(tmp_path / "in", *tries, device="cpu,cpu") == ["connected", DENIED, DENIED, DENIED, DENIED]


def test_nothing_is_open_but_the_pipe(tmp_path: Path) -> None:
    (opened,) = attempt(tmp_path / "in", ("descriptors",))
    kinds = [name.split(":")[0] for name in opened]
    folder = str(tmp_path / "in")
    own_proc = [name for name in opened if name.startswith("/proc/")]
    assert len(own_proc) <= 1  # held by the rule on it
    assert sorted(kind for kind in kinds if not kind.startswith("/proc/")) == sorted(
        ["/dev/null", f"{folder}/log", f"{folder}/log", f"{folder}/scratch", "socket"]
    )


def test_it_has_no_powers(tmp_path: Path) -> None:
    (status,) = attempt(tmp_path / "in", ("status", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"))
    bounded = {"CapBnd": "0" * 16} if os.geteuid() == 0 else {"CapBnd": status["CapBnd"]}
    assert status == {"CapEff": "0" * 16, "CapPrm": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2", **bounded}


@pytest.mark.parametrize("name", [
    "io_uring_setup", "bpf", "keyctl", "perf_event_open", "userfaultfd", "mount", "unshare", "setns", "shmget",
    "mq_open", "open_by_handle_at", "kexec_load", "chroot", "setxattr", "setsid", "setpgid",
])
def test_calls_that_no_training_needs_are_refused(tmp_path: Path, name: str) -> None:
    assert attempt(tmp_path / "in", ("call", name)) == [DENIED]


def test_what_it_starts_is_held_as_well(tmp_path: Path, outside: tuple[Path, str]) -> None:
    folder, secret = outside
    token = str(folder / "token")
    assert attempt(tmp_path / "in", ("from_a_child", token)) == [DENIED]
    assert attempt_freely(tmp_path / "free", ("from_a_child", token)) == [f"the secret: {secret}"]


def test_files_are_bounded_and_nothing_is_dumped(tmp_path: Path) -> None:
    assert attempt(tmp_path / "in", ("limits",)) == [{"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 64 * 1024**3}]


def test_without_landlock_a_trainer_tells_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    last, log = on_an_old_kernel(tmp_path, "preferred")
    assert last == "finished"
    assert "NOT in force: files (the kernel's Landlock ABI is 0; 2 is needed); signals (no Landlock)" in log


def test_a_trainer_that_must_be_confined_does_no_job_where_it_cannot(tmp_path: Path) -> None:
    last, _ = on_an_old_kernel(tmp_path, "required")
    assert last == "sandbox_unavailable"


def on_an_old_kernel(folder: Path, mode: str) -> tuple[str, str]:
    """The last word of a trainer whose forkserver sees no Landlock, and its log."""
    ordered = order(folder, engine="tests.fixtures.old_kernel_engine", sandbox=mode, labels={"noop.steps": "1"})
    code = (
        "import sys; from worker.child import Child, warm_up; from worker.orders import Order;"
        "from tests.fixtures.orders import trainer, words; warm_up('tests.fixtures.old_kernel_engine');"
        "ordered = Order.model_validate_json(sys.argv[1])\n"
        "with trainer(ordered) as child: last = list(words(child))[-1]\n"
        "print(last.failure.code if last.type == 'failed' else last.type)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ordered.model_dump_json()], check=True, timeout=120, capture_output=True,
        text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout.strip(), (folder / "log").read_text()


def test_a_worker_tells_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "in force: descriptors, limits, capabilities" in sandbox.summary("required")
    assert "trainers reach whatever this user reaches" in sandbox.summary("off")
    monkeypatch.setattr(sandbox, "probe", lambda: Confinement(["limits"], {"files": "no Landlock"}))
    assert sandbox.summary("preferred") == (
        "sandbox: preferred; in force: limits; NOT in force: files (no Landlock)"
    )


def test_a_worker_that_must_confine_does_not_start_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "probe", lambda: Confinement([], {"files": "no Landlock"}))
    with pytest.raises(SystemExit, match="STILLHOUSE_SANDBOX is required, and this system cannot give all of it"):
        sandbox.summary("required")
