"""A disk that forgets: what may be left of a run's directory when the power goes, of all that was not synced.

The rules are those of POSIX, and one more. The content of a file is safe after an fsync of the file, a name (made,
renamed or deleted) after an fsync of its folder, and what is not safe may be there, or not, in any combination. But a
rename from one folder to another happens whole or not at all, as file systems with a journal have it.
"""

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from faults import Door


@dataclass
class File:
    """A file: its content when it was synced last, and after each change since."""

    path: Path
    versions: list[bytes] = field(default_factory=lambda: [b""])


@dataclass(eq=False)
class Change:
    """What names of a folder now mean. A rename from another folder is one change in each of both."""

    names: dict
    other: "tuple[Folder, Change] | None" = None


@dataclass
class Folder:
    """A folder: its names when it was synced last, and the changes since."""

    path: Path
    synced: dict = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def names(self, changes: list[Change]) -> dict:
        """The names after some of the changes; None is a name that was deleted."""
        found = dict(self.synced)
        for change in changes:
            found |= change.names
        return {name: node for name, node in found.items() if node is not None}

    def sync(self) -> None:
        """All changes are safe, and the other halves of those that have one."""
        changes, self.synced, self.changes = self.changes, self.names(self.changes), []
        for change in changes:
            if change.other is not None:
                folder, half = change.other
                folder.settle(half)

    def settle(self, last: Change) -> None:
        """One change is safe, and so are those before it that are about the same names."""
        if last not in self.changes:
            return
        before = self.changes[: self.changes.index(last) + 1]
        safe = [change for change in before if change.names.keys() & last.names.keys()]
        self.synced = self.names(safe)
        self.changes = [change for change in self.changes if change not in safe]


class ForgetfulDisk(Door):
    """Follows what happens below a folder, and collects what a power cut after each call could leave of it.

    `remains` are pairs: a state of the disk, and the names of the files that every power cut at this instant leaves.
    """

    def __init__(self, root: Path, seed: int = 0):
        super().__init__()
        self.root = self._found(root)
        self.descriptors = {}
        self.chance = random.Random(seed)
        self.remains: list[tuple[dict, set]] = []

    def __call__(self, operation, *arguments):
        result = super().__call__(operation, *arguments)
        safe = self._safe()
        self.remains += [(state, safe) for state in self._states()]
        return result

    def perform(self, operation, *arguments):
        result = super().perform(operation, *arguments)
        if operation is os.open:
            self._open(result, *arguments)
        elif operation in (os.write, os.ftruncate):
            file = self.descriptors[arguments[0]]
            file.versions.append(file.path.read_bytes())
        elif operation is os.fsync:
            self._sync(self.descriptors[arguments[0]])
        elif operation is os.close:
            self.descriptors.pop(arguments[0], None)
        elif operation is os.mkdir:
            self._change(arguments[0], Folder(Path(arguments[0])))
        elif operation is os.unlink:
            self._change(arguments[0], None)
        elif operation is os.replace:
            self._rename(*map(Path, arguments))
        elif operation is os.rmdir:
            self._change(arguments[0], None)
        elif operation not in (os.fchmod, os.fchown):
            raise AssertionError(f"what does {operation} do to a disk?")
        return result

    def now(self) -> dict[str, bytes | None]:
        """Everything below the root, as it is while the power stays on: bytes of files, None for folders."""
        return self._state(lambda folder: folder.changes, lambda file: file.versions[-1])

    def _states(self) -> list[dict[str, bytes | None]]:
        """What a power cut could leave now: four extremes, and two of the many combinations between them."""

        def none(folder):
            return []

        chosen = {}

        def some(folder):
            return [change for change in folder.changes if is_chosen(change)]

        def is_chosen(change):
            if change not in chosen:
                chosen[change] = self.chance.random() < 0.5
                if change.other is not None:
                    chosen[change.other[1]] = chosen[change]
            return chosen[change]

        def every(folder):
            return folder.changes

        def synced(file):
            return file.versions[0]

        def newest(file):
            return file.versions[-1]

        def zeros(file):
            # the new length was noted down, but not what was written since
            return _common_start(file.versions).ljust(len(newest(file)), b"\0")

        def torn(file):
            version = self.chance.choice(file.versions)
            return version[: self.chance.randint(min(map(len, file.versions)), len(version))]

        extremes = [(none, synced), (none, newest), (every, synced), (every, zeros)]
        return [self._state(*way) for way in [*extremes, (some, torn), (some, torn)]]

    def _safe(self) -> set[str]:
        """The files that every power cut leaves, by the path below the root, with their content."""
        safe = set()

        def walk(folder, place):
            changed = {name for change in folder.changes for name in change.names}
            for name, node in folder.synced.items():
                if name in changed:
                    continue
                if isinstance(node, Folder):
                    walk(node, f"{place}{name}/")
                elif len(node.versions) == 1:
                    safe.add(place + name)

        walk(self.root, "")
        return safe

    def _found(self, path: Path):
        """What is there at the beginning, and safe."""
        if path.is_dir():
            return Folder(path, {entry.name: self._found(entry) for entry in path.iterdir()})
        return File(path, [path.read_bytes()])

    def _node(self, path: Path):
        node = self.root
        for part in Path(path).relative_to(self.root.path).parts:
            node = node.names(node.changes)[part]
        return node

    def _change(self, path: Path, node) -> None:
        self._node(Path(path).parent).changes.append(Change({Path(path).name: node}))

    def _rename(self, source: Path, target: Path) -> None:
        node, left, entered = self._node(source), self._node(source.parent), self._node(target.parent)
        _lie_at(node, target)
        if left is entered:
            left.changes.append(Change({source.name: None, target.name: node}))
            return
        gone, here = Change({source.name: None}), Change({target.name: node})
        gone.other, here.other = (entered, here), (left, gone)
        left.changes.append(gone)
        entered.changes.append(here)

    def _open(self, descriptor: int, path: Path, flags: int, mode: int = 0) -> None:
        path = Path(path)
        parent = self._node(path.parent) if path != self.root.path else None
        if parent is not None and path.name not in parent.names(parent.changes):
            self._change(path, File(path))
        node = self._node(path)
        if flags & os.O_TRUNC and node.versions[-1]:
            node.versions.append(b"")
        self.descriptors[descriptor] = node

    def _sync(self, node) -> None:
        if isinstance(node, File):
            node.versions = node.versions[-1:]
        else:
            node.sync()

    def _state(self, changes_of, content_of) -> dict[str, bytes | None]:
        state = {}

        def walk(folder, place):
            for name, node in folder.names(changes_of(folder)).items():
                if isinstance(node, File):
                    state[place + name] = content_of(node)
                else:
                    state[place + name] = None
                    walk(node, f"{place}{name}/")

        walk(self.root, "")
        return state


def _lie_at(node: File | Folder, path: Path) -> None:
    node.path = path
    if isinstance(node, Folder):
        for name, inner in node.names(node.changes).items():
            _lie_at(inner, path / name)


def _common_start(versions: list[bytes]) -> bytes:
    shortest = min(versions, key=len)
    same = (all(version[i] == byte for version in versions) for i, byte in enumerate(shortest))
    return shortest[: next((i for i, equal in enumerate(same) if not equal), len(shortest))]


def restore(state: dict[str, bytes | None], root: Path) -> None:
    """Make a folder anew, with a state in it."""
    shutil.rmtree(root)
    root.mkdir()
    for name, content in state.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


def read(root: Path) -> dict[str, bytes | None]:
    """The state of a folder, as `restore` takes it."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }
