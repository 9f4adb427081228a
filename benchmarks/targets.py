"""What training must reach, by net and batch: the least speed relative to each library, to the limit, to ourselves."""

from mlp_cli.benchmark import Net

# The nets on which no library below may be faster, with one thread or two.
EVERYDAY = {
    ("8-16-2", 1),
    ("8-16-2", 32),
    ("30-64-64-2", 32),
    ("784-128-10", 1),
    ("784-128-10", 32),
    ("784-128-10", 128),
    ("784-512-512-10", 128),
    ("784-512-512-10", 1024),
}
FASTER_THAN = ("PyTorch", "scikit-learn")
# One thread.
PEERS = {
    "JAX": {
        ("8-16-2", 1): 6.0,
        ("8-16-2", 32): 4.0,
        ("30-64-64-2", 32): 1.75,
        ("784-128-10", 1): 1.6,
        ("784-128-10", 32): 1.28,
        ("784-128-10", 128): 1.2,
        ("784-512-512-10", 128): 1.15,
        ("784-512-512-10", 1024): 1.12,
    },
    "FANN": {("8-16-2", 1): 3.5, ("784-128-10", 1): 15.0},
}
LIMIT = {
    ("784-128-10", 32): 0.86,
    ("784-128-10", 128): 0.87,
    ("784-512-512-10", 128): 0.93,
    ("784-512-512-10", 1024): 0.92,
    ("784-300-100-10", 50): 0.86,
    ("1000-1000-1000-16", 100): 0.92,
}
# Two threads on two free cores, relative to one thread. Other nets are not slower, but for the noise of measuring.
TWO_THREADS = {("784-128-10", 32): 1.75, ("784-512-512-10", 128): 1.9, ("30-64-64-2", 32): 1.2}
NOT_SLOWER = 0.97


def key(net: Net) -> tuple[str, int]:
    """How the tables here name a net."""
    return net.name, net.batch


def against_peer(name: str, net: Net, threads: int) -> float | None:
    """The least speed relative to a library; None where nothing is demanded."""
    if name in FASTER_THAN:
        return 1.0 if key(net) in EVERYDAY else None
    return PEERS[name].get(key(net)) if threads == 1 else None


def against_limit(net: Net, threads: int) -> float | None:
    """The least share of the limit; None where nothing is demanded."""
    return LIMIT.get(key(net)) if threads == 1 else None


def with_two_threads(net: Net) -> float:
    """The least speed relative to one thread."""
    return TWO_THREADS.get(key(net), NOT_SLOWER)
