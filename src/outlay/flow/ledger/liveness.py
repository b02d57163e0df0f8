"""Who is alive beside us on one ledger file: locks that the kernel drops when a process dies, however it dies.

Each process that writes a shared ledger holds a lock file of its own epoch, so that nobody takes a living process's
holds for a dead one's; and all of them share the ledger's lock file, which a gateway takes for itself alone.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from outlay.kernel.errors import StoreError


class SharedLock:
    """A share of the ledger's lock file: other embedded processes may have theirs, a gateway may not start."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError if a gateway (or a command that writes) has the ledger."""
        lock = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot lock the ledger {path.name}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise StoreError(
                f"the ledger {path.name} is in use by a gateway; give the SDK a ledger of its own, or wrap with"
                " gateway=..."
            ) from error

    def close(self) -> None:
        """Give the share back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class EpochLock:
    """Says that the process of an epoch lives."""

    def __init__(self, ledger: Path, epoch: int) -> None:
        """Raises OSError if the lock cannot be had."""
        self.path = epoch_path(ledger, epoch)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise

    def close(self) -> None:
        """The epoch is over."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.forget()

    def forget(self) -> None:
        """Let go of a lock that a forked child has inherited; its parent keeps it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def epoch_path(ledger: Path, epoch: int) -> Path:
    """The lock file of an epoch."""
    return ledger.with_name(f"{ledger.name}.live-{epoch}")


def is_dead(ledger: Path, epoch: int) -> bool:
    """Whether the process of an epoch is gone; its lock file is tidied away."""
    path = epoch_path(ledger, epoch)
    try:
        found = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        with contextlib.suppress(OSError):
            path.unlink()
        return True
    finally:
        os.close(found)


def boot_id() -> str:
    """Which boot of the machine this is; "unknown" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def this_process() -> str:
    """Names this process for `is_proven_dead`, on whatever machine that is asked."""
    return json.dumps({"boot": boot_id(), "namespace": _pid_namespace(), "pid": os.getpid()})


def is_proven_dead(process: str) -> bool:
    """Whether `this_process` of then ran on this boot of this machine, in this namespace of pids, and runs no more."""
    try:
        who: dict[str, Any] = json.loads(process)
        pid = int(who["pid"])
    except (ValueError, KeyError, TypeError):
        return False
    if who.get("boot") != boot_id() or who.get("namespace") != _pid_namespace():
        return False  # its pid says nothing here
    if "unknown" in (boot_id(), _pid_namespace()):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"
