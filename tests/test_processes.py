"""What keeps us from leaving anything behind: children, owners, orphans, folders; what a node can give."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flamezmq import capacity, folder, processes
from tests.waiting import alive, until

pytestmark = pytest.mark.processes

WAIT_SECONDS = 5.0
Body = Callable[[], int | None]


def run(body: Body) -> int:
    """Run `body` in a process of its own; returns its exit code, negative for a signal."""
    pid = fork(body)
    pidfd = os.pidfd_open(pid)
    try:
        assert processes.ready(pidfd, WAIT_SECONDS), "it hangs"
    finally:
        processes.kill(pid)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def fork(body: Body) -> int:
    pid = os.fork()
    if not pid:
        processes.run_and_exit(body)
    return pid


def open_descriptors() -> list[int]:
    numbers = os.listdir("/proc/self/fd")  # one of them lists them, and is gone after it
    return sorted(int(number) for number in numbers if os.path.lexists(f"/proc/self/fd/{number}"))


def sleep_for_ever() -> None:
    while True:
        signal.pause()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def read_number(fd: int) -> int:
    assert processes.ready(fd, WAIT_SECONDS), "nothing came"
    return int(os.read(fd, 64).split()[0])


# --- run_and_exit, fork_child


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda: None, 0),
        (lambda: 5, 5),
        (lambda: sys.exit(6), 6),
        (lambda: sys.exit("no"), 1),
        (lambda: 1 // 0, 1),
    ],
)
def test_a_body_ends_its_process_and_never_returns(end: Body, code: int) -> None:
    assert run(end) == code


def test_what_was_printed_is_flushed_before_the_end() -> None:
    with pipe() as (ours, theirs):

        def body() -> None:
            sys.stdout = open(theirs, "w")
            print("last words", end="")

        run(body)
        assert os.read(ours, 64) == b"last words"


def test_the_child_of_a_fork_has_a_stack_of_its_own_and_nothing_it_was_not_given() -> None:
    with pipe() as (ours, theirs):

        def child() -> None:
            depth = 0
            frame = sys._getframe()
            while frame.f_code.co_name != "run_and_exit":
                assert frame.f_back is not None
                depth, frame = depth + 1, frame.f_back
            fds = open_descriptors()
            name = Path("/proc/self/comm").read_text().strip()
            os.write(theirs, f"{depth} {fds == [0, 1, 2, theirs]} {name}".encode())

        def parent() -> int:
            def deep(levels: int) -> int:
                return deep(levels - 1) if levels else processes.fork_child("flm-test", [theirs], child)

            return os.waitstatus_to_exitcode(os.waitpid(deep(50), 0)[1])

        assert run(parent) == 0
        assert os.read(ours, 64).split() == [b"3", b"True", b"flm-test"]


def test_a_child_dies_with_its_parent_even_if_that_is_killed() -> None:
    with pipe() as (ours, theirs):

        def parent() -> None:
            os.write(theirs, b"%d\n" % processes.fork_child("flm-test", [], sleep_for_ever))
            sleep_for_ever()

        pid = fork(parent)
        child = read_number(ours)
        assert alive(child)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

        until(lambda: not alive(child), "the child's death")


def test_a_child_whose_parent_is_gone_before_it_could_say_so_ends_at_once() -> None:
    def body() -> int:
        processes.die_with_parent(os.getpid())  # that is not who forked us
        return 0

    assert run(body) == 1


# --- owners, groups, orphans


def test_an_owner_is_gone_when_it_has_ended_even_before_we_looked() -> None:
    with pipe() as (ours, theirs):
        pid = fork(lambda: len(os.read(ours, 1)))
        watch = processes.OwnerWatch(os.pidfd_open(pid))
        assert not watch.gone()

        os.write(theirs, b"+")
        assert processes.ready(watch.fd, WAIT_SECONDS)
        os.waitpid(pid, 0)
        assert watch.gone()
        watch.close()
        watch.close()


def test_a_group_is_killed_whole_and_one_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    with child, child.stdout as out:
        grandchild = read_number(out.fileno())
        processes.kill_group(child.pid)
        assert child.wait(WAIT_SECONDS) == -signal.SIGKILL
        until(lambda: not alive(grandchild), "the grandchild's death")
    processes.kill_group(child.pid)


HIDDEN = "(setsid setsid sleep 100 & echo $!) ; exit 0"


def test_a_subreaper_kills_and_reaps_what_hid_in_a_session_of_its_own() -> None:
    with pipe() as (ours, theirs):

        def body() -> int:
            processes.become_subreaper()
            subprocess.run(["sh", "-c", HIDDEN], check=True, stdout=theirs)
            subprocess.Popen(["sleep", "100"])
            found = len(processes.descendants(os.getpid()))
            return 10 * found + processes.reap_descendants(WAIT_SECONDS)

        assert run(body) == 20
        hidden = read_number(ours)
        assert not alive(hidden)


def test_who_is_spared_lives_and_so_do_its_children() -> None:
    def body() -> int:
        spared = fork(lambda: int(bool(subprocess.Popen(["sleep", "100"]).wait())))
        other = subprocess.Popen(["sleep", "100"])
        until(lambda: len(processes.descendants(spared)) == 1)
        assert processes.kill_descendants([spared], WAIT_SECONDS) == 0
        other.wait()
        left = len(processes.descendants(os.getpid()))
        processes.reap_descendants(WAIT_SECONDS)
        return left

    assert run(body) == 2


def test_orphans_are_found_by_their_mark() -> None:
    environment = {**os.environ, processes.MARK: "/tmp/some-cluster"}
    with subprocess.Popen(["sleep", "100"], env=environment, start_new_session=True) as child:
        until(lambda: processes._has_mark(child.pid, f"{processes.MARK}=/tmp/some-cluster".encode()))

        assert processes.kill_marked("/tmp/some", 0.0) == 0, "not by a part of it"
        assert processes.kill_marked("/tmp/some-cluster") == 1
        assert child.wait(WAIT_SECONDS) == -signal.SIGKILL


# --- spawn


def report_what_was_inherited() -> None:
    """In the spawned interpreter."""
    processes.close_all_but([3, 4])
    fds = open_descriptors()
    leader = os.getsid(0) == os.getpid()
    default = signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    words = [sys.argv[3], os.readlink("/proc/self/fd/0"), fds, leader, default, "" in sys.path]
    os.write(4, repr(words).encode())


def test_a_spawned_interpreter_is_clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "select.py").write_text("raise RuntimeError('this is not the one')\n")
    (tmp_path / "fcntl.py").write_text("raise RuntimeError('this is not the one')\n")
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pipe() as (ours, theirs), open(os.devnull) as null:
            output = os.open("output", os.O_RDWR | os.O_CREAT)
            pid = processes.spawn(
                "tests.test_processes:report_what_was_inherited", 'a "word"', [null.fileno(), theirs], output
            )
            pidfd = os.pidfd_open(pid)
            signal.signal(signal.SIGCHLD, before)
            assert processes.ready(pidfd, 20.0)
            os.close(pidfd)
            os.close(output)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            assert Path("output").read_text() == ""
            words = eval(os.read(ours, 4096))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert words == ['a "word"', os.devnull, [0, 1, 2, 3, 4], True, True, False]


def test_an_interpreter_that_does_not_know_itself_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")

    with pytest.raises(OSError, match=r"sys\.executable is empty"):
        processes.spawn("json:loads", "", [])


# --- folders


def test_a_folder_is_private_and_locked_until_it_is_released(tmp_path: Path) -> None:
    ours = folder.PrivateFolder.create(str(tmp_path))

    assert os.stat(ours.path).st_mode & 0o777 == 0o700
    assert folder.sweep(str(tmp_path)) == 0
    assert os.path.isdir(ours.path)

    ours.release()
    assert folder.sweep(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_handed_on_holds(tmp_path: Path) -> None:
    ours = folder.PrivateFolder.create(str(tmp_path))
    other = os.dup(ours.lock)
    ours.release()

    assert folder.sweep(str(tmp_path)) == 0
    os.close(other)
    assert folder.sweep(str(tmp_path)) == 1


def test_removing_is_idempotent_and_takes_all(tmp_path: Path) -> None:
    ours = folder.PrivateFolder.create(str(tmp_path))
    Path(ours.file("log")).write_text("x")
    Path(ours.file("deep")).mkdir()
    Path(ours.file("deep/er")).write_text("x")

    ours.remove()
    ours.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_touches_only_dead_folders_of_ours_and_not_too_many(tmp_path: Path) -> None:
    kept = folder.PrivateFolder.create(str(tmp_path))
    stranger = tmp_path / "flamezmq-x"
    stranger.mkdir()
    link = tmp_path / f"flamezmq-{os.getuid()}-link"
    link.symlink_to(stranger)
    young = tmp_path / f".flamezmq-{os.getuid()}-young"
    young.mkdir()
    old = tmp_path / f".flamezmq-{os.getuid()}-old"
    old.mkdir()
    os.utime(old, (0, 0))
    for number in range(3):
        (tmp_path / f"flamezmq-{os.getuid()}-{number}").mkdir()  # half removed: no lock file

    assert folder.sweep(str(tmp_path), at_most=2) == 2
    assert folder.sweep(str(tmp_path)) == 2
    assert sorted(tmp_path.iterdir()) == sorted([Path(kept.path), stranger, link, young])
    kept.remove()


def test_what_a_dead_cluster_left_running_goes_with_its_folder(tmp_path: Path) -> None:
    dead = folder.PrivateFolder.create(str(tmp_path))
    with subprocess.Popen(["sleep", "100"], env={**os.environ, processes.MARK: dead.path}) as left:
        until(lambda: processes._has_mark(left.pid, f"{processes.MARK}={dead.path}".encode()))
        dead.release()

        assert folder.sweep(str(tmp_path)) == 1
        assert left.wait(WAIT_SECONDS) == -signal.SIGKILL


def test_the_lock_of_a_killed_owner_can_be_taken(tmp_path: Path) -> None:
    with pipe() as (ours, theirs):

        def owner() -> None:
            folder.PrivateFolder.create(str(tmp_path))
            os.write(theirs, b"1\n")
            sleep_for_ever()

        pid = fork(owner)
        read_number(ours)
        assert folder.sweep(str(tmp_path)) == 0
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    assert folder.sweep(str(tmp_path)) == 1


def test_a_socket_fits_into_the_folder_wherever_the_runtime_directory_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, "/tmp/" + "long/" * 30)
    assert folder.base_folder() == "/tmp"

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/does/not/exist")
    assert folder.base_folder() == "/tmp"

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/dev/shm")
    assert folder.base_folder() == "/dev/shm"


# --- capacity


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


AFFINITY = float(len(os.sched_getaffinity(0)))
V2 = {"proc/self/cgroup": "0::/pod/box\n"}
V1 = {"proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n1:name=systemd:/\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, AFFINITY),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "50000 100000\n"}, 0.5),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, AFFINITY),
        (  # the one above is the stricter one
            {
                **V2,
                "sys/fs/cgroup/pod/box/cpu.max": "90000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "25000 100000\n",
            },
            0.25,
        ),
        ({**V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),  # a container: the path is the host's
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            AFFINITY,
        ),
    ],
)
def test_cores_are_what_the_cgroup_allows(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    assert capacity.usable_cores(write(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({**V2, "sys/fs/cgroup/pod/box/memory.max": "max", "sys/fs/cgroup/pod/memory.max": "4096"}, 4096),
        ({**V1, "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "8192\n"}, 8192),
    ],
)
def test_memory_is_what_the_cgroup_allows(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    machine = capacity.memory_limit(str(tmp_path))

    assert capacity.memory_limit(write(tmp_path, files)) == limit < machine
    (tmp_path / "proc/self/cgroup").unlink()
    assert capacity.memory_limit(str(tmp_path)) == machine


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, 0),
        ({"proc/vmstat": "nr_free_pages 9\noom_kill 7\n"}, 7),
        (
            {
                **V2,
                "sys/fs/cgroup/pod/box/memory.events": "low 0\noom 3\noom_kill 2\n",
                "proc/vmstat": "oom_kill 7\n",
            },
            2,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/memory/box/memory.oom_control": "under_oom 0\noom_kill 4\n",
            },
            4,
        ),
    ],
)
def test_out_of_memory_kills_are_counted_as_near_as_can_be(
    tmp_path: Path, files: dict[str, str], kills: int
) -> None:
    assert capacity.oom_kills(write(tmp_path, files)) == kills


def test_the_users_own_thread_limits_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in capacity.MATH_THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    capacity.limit_math_threads(0.5)

    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    for name in capacity.MATH_THREADS:
        monkeypatch.setenv(name, "1")  # so that what was set is undone


def test_a_lock_is_the_kernels() -> None:
    """The folder's rule rests on it: the lock goes with the last descriptor, not with the first."""
    fd = os.memfd_create("lock")
    path = f"/proc/self/fd/{fd}"
    other = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
