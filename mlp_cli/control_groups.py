"""The control groups of this process: batch systems and containers limit its processors and memory by them."""

from collections.abc import Iterator
from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """(version 1 or 2, folder) of each group that limits this process by `controller` ("cpu", "memory"), its own and
    those above it. `root` is where /proc and /sys are found; a folder need not exist."""
    for line in text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            yield from ((2, folder) for folder in _with_parents(root / "sys/fs/cgroup", group))
        elif controller in controllers.split(","):
            mounts = (root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller)
            for mount in dict.fromkeys(mounts):
                yield from ((1, folder) for folder in _with_parents(mount, group))


def text(path: Path) -> str:
    """What a file of /proc or /sys says, empty where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _with_parents(mount: Path, group: str) -> list[Path]:
    # Inside a container the group's own path may not exist, and the mount itself stands for it.
    folder = mount / group.strip().lstrip("/")
    return [folder, *[parent for parent in folder.parents if parent.is_relative_to(mount)]]
