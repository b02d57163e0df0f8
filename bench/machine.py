"""The machine: what it is, which cores the parties get, what processes use, and who else was busy meanwhile. Linux."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_WANTED_FILES = 16384
"""Open files for 1,000 streams through a proxy, twice over."""
_PACKAGES = ("outlay", "uvloop", "httptools", "msgspec", "apsw")


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the subject runs on, and which the load and the mock share."""

    subject: int | None
    load: int | None

    @property
    def note(self) -> str:
        if self.subject is None or self.load is None:
            return (
                "ONE CORE ONLY: subject, load and mock share it; figures are not comparable with pinned ones"
            )
        return f"subject alone on core {self.subject}; load and mock on core {self.load}"


def choose_cores() -> Cores:
    """The first two cores this process may use; none if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1]) if len(usable) > 1 else Cores(None, None)


@contextmanager
def started_on(core: int | None) -> Iterator[None]:
    """Children started inside inherit this core (and so do all their threads)."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> None:
    """Let children hold thousands of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def child_environment() -> dict[str, str]:
    """This environment, but with byte code written: a start must not be measured compiling."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def process_tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            fields = _stat(int(entry))
            if fields is not None:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the process tree so far, in steps of a clock tick (10 ms)."""
    total = 0
    for pid in process_tree(root):
        fields = _stat(pid)
        if fields is not None:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def rss_megabytes(root: int) -> float:
    """Resident memory of the process tree, in 10**6 bytes; pages shared between its processes count in each."""
    total = 0
    for pid in process_tree(root):
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total / 1e6


def waited_ms(pid: int) -> float:
    """How long a process's main thread has been ready to run while another had its core, since its start."""
    fields = Path(f"/proc/{pid}/schedstat").read_text("ascii").split()
    return int(fields[1]) / 1e6


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (the name before it may hold anything); None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class Bystanders:
    """How busy the machine was with work that is not the benchmark's: a figure taken beside it is suspect."""

    def __init__(self) -> None:
        self._busy, self._all = _machine_ticks()
        self._own = _own_ticks()

    def share(self, outside_seconds: float = 0.0) -> float:
        """Share of the machine's time, since the start, used by processes that are not ours; 0 to 1.

        `outside_seconds`: of servers of ours that are not our children.
        """
        busy, everything = _machine_ticks()
        foreign = (busy - self._busy) - (_own_ticks() - self._own) - outside_seconds * _TICKS_PER_SECOND
        return max(0.0, foreign / max(1, everything - self._all))


def _machine_ticks() -> tuple[int, int]:
    """Busy and all ticks of all cores; softirq work counts as nobody's, as it is mostly the loopback's."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = fields
    return user + nice + system + steal, user + nice + system + idle + iowait + irq + softirq + steal


def _own_ticks() -> int:
    """Ticks of this process, of its living children, and of those it has waited for."""
    own = os.times()
    ended = own.user + own.system + own.children_user + own.children_system
    living = sum(cpu_seconds_of(pid) for pid in process_tree(os.getpid())[1:])
    return round((ended + living) * _TICKS_PER_SECOND)


def cpu_seconds_of(pid: int) -> float:
    """User and system time of one process, with that of children it has waited for."""
    fields = _stat(pid)
    return (
        0.0 if fields is None else sum(int(fields[index]) for index in (11, 12, 13, 14)) / _TICKS_PER_SECOND
    )


def describe(cores: Cores) -> dict[str, str]:
    """What a reader needs to repeat the figures."""
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "pinning": cores.note,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": _first_line(["cc", "--version"]),
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "commit": _commit(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(absent)"


def _commit() -> str:
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = _first_line(["git", "-C", str(ROOT), "status", "--porcelain"])
    return commit + (" and uncommitted changes" if changed else "")


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "(unknown)"
    return done.stdout.partition("\n")[0].strip()


def require_linux() -> None:
    """The C parts use epoll and timerfd, the harness /proc."""
    if sys.platform != "linux":
        raise SystemExit("bench: needs Linux (epoll, timerfd, /proc)")
