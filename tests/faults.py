"""Disks that fail and processes that die at a chosen call: they take the place of `files._call`, the one door.

Whatever a run writes, syncs, renames or deletes is a call through that door, and so has a number. Tests let a run meet
its fault at each of these numbers, and look at what can be made of the remains.
"""

import errno
import os
from pathlib import Path

from mlp_cli.runs import files

# What disks say when they fail.
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
FOR_EVER = 10**9


class Dead(BaseException):
    """The process ended here, as by kill -9: nothing of ours catches it, and no `finally` gets past the door."""


def file_name(path) -> str:
    """The name of a file; of a temporary one, the name that it is to get."""
    name = Path(path).name
    return files.final_name(name) or name


class Door:
    """Counts the calls and does what they ask for. Nothing is synced: that shows only when the power goes."""

    def __init__(self):
        self.calls = 0
        self.opened: list[tuple[int, str]] = []  # the numbers of the calls that opened a file or a folder, and its name

    def __call__(self, operation, *arguments):
        self.calls += 1
        if operation is os.open:
            self.opened.append((self.calls, file_name(arguments[0])))
        return self.perform(operation, *arguments)

    def perform(self, operation, *arguments):
        return None if operation is os.fsync else operation(*arguments)


class Killer(Door):
    """The process dies at the n-th call. If that is a write, half of it still happens."""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def perform(self, operation, *arguments):
        if self.calls < self.n:
            return super().perform(operation, *arguments)
        if operation is os.write and self.calls == self.n:
            _write_half(*arguments)
        if operation is os.close:
            # the system closes what a dead process had open; no buffer of ours is written by that
            operation(*arguments)
        raise Dead


class Failer(Door):
    """The calls from the n-th on fail, `length` of them. A write that fails has written half of its bytes."""

    def __init__(self, n: int, number: int, length: int = 1):
        super().__init__()
        self.n, self.number, self.length = n, number, length

    def perform(self, operation, *arguments):
        if not self.n <= self.calls < self.n + self.length:
            return super().perform(operation, *arguments)
        if operation is os.write:
            _write_half(*arguments)
        if operation is os.close:
            operation(*arguments)  # Linux closes it, whatever it says about that
        raise OSError(self.number, os.strerror(self.number))


class Refuser(Door):
    """Every file whose name begins with one of these words cannot be opened, as long as `refuses`."""

    def __init__(self, *names: str, number: int = errno.ENOSPC):
        super().__init__()
        self.names, self.number, self.refuses = names, number, True

    def perform(self, operation, *arguments):
        if self.refuses and operation is os.open and file_name(arguments[0]).startswith(self.names):
            raise OSError(self.number, os.strerror(self.number))
        return super().perform(operation, *arguments)


class FailerAndKiller(Failer):
    """A call fails, and later the process dies."""

    def __init__(self, n: int, number: int, end: int):
        super().__init__(n, number)
        self.killer = Killer(end)

    def perform(self, operation, *arguments):
        self.killer.calls = self.calls
        if self.calls >= self.killer.n:
            return self.killer.perform(operation, *arguments)
        return super().perform(operation, *arguments)


def _write_half(descriptor: int, data: memoryview) -> None:
    os.write(descriptor, data[: len(data) // 2])
