"""The libraries that training is compared with, one file each, and what such a file has to say.

    NAME                                    what tables call the library
    INTERPRETED                             whether each step passes through Python, which costs it 0.1 ms or more
    available() -> str | None               the version that is installed, or None
    environment(threads) -> dict            variables that have to be set before its process starts
    takes(batch, threads) -> bool           whether the library can train this way at all
    Peer(sizes, batch, x, y, threads)       a net and its rows: x float32 (n, sizes[0]), y int32 (n,), batch divides n
    Peer.epoch() -> float                   trains on all rows once, in a new random order; the seconds it took

Every peer trains the same net by plain gradient descent (`RATE`, no momentum, no penalty) on the same rows, which lie
in memory, in the way that is fastest among those its own users know. Nothing heavy is imported before a Peer is made.
"""

import importlib
from importlib import metadata
from types import ModuleType

# Names for the command line, in the order of the tables.
PEERS = {
    "pytorch": "benchmarks.peers.pytorch",
    "jax": "benchmarks.peers.jax_scan",
    "sklearn": "benchmarks.peers.sklearn_mlp",
    "fann": "benchmarks.peers.fann",
}
RATE = 0.01


def module(name: str) -> ModuleType:
    """The module of a peer."""
    return importlib.import_module(PEERS[name])


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, which is not imported; None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
