"""How much memory it takes to train a network, or to measure rows with it, found out before any of it is taken."""

import numpy as np

from mlp_cli import memory
from mlp_cli.network.machine import memory_needed
from mlp_cli.network.network import Network

# Bytes for each number of the largest parameter while it is drawn: in float64, then three times in the network's type.
DRAWN, DRAWN_COPIES = 8, 3
# What a save holds besides the state itself: its arrays by name, and the file that is made of them, twice in passing.
SAVED_COPIES = 3
# Bytes for each row that is measured: its loss, class and place, and its score sorted among the others; and for each
# output that is no probability yet, while it becomes one in float64.
MEASURED_ROW, MAPPED_OUTPUT = 48, 32


def require_to_train(network: Network, needed: int, is_mapped: bool) -> None:
    """SystemFault where memory has no room for what `to_train` found; the data are there already, or mapped."""
    remedies = ["use fewer units", "a smaller training.batch_size"]
    if network.dtype.itemsize > np.dtype(np.float32).itemsize:
        remedies.append("dtype: float32")
    if not is_mapped:
        remedies.append("leave the data on the disk (.npy files and data.memory: map)")
    memory.require(
        needed,
        f"Besides the data, training {network.program.parameter_count:,} parameters takes",
        f"{', '.join(remedies[:-1])} or {remedies[-1]}",
    )


def to_train(network: Network, rows: list[int], threads: int, keeps_best: bool) -> int:
    """Bytes that training takes at its largest: where parameters are drawn, a checkpoint is written, or a part of the
    data is measured. `rows` are those of each part, the training rows first."""
    stated = network.config.training.batch_size
    batch_size = min(rows[0], 32 if stated is None else rows[0] if stated == "full" else stated)
    itemsize = network.dtype.itemsize
    parameters = network.program.parameter_size * itemsize
    state = parameters * (1 + network.moment_count + keeps_best)
    kept = memory_needed(network, batch_size, threads) + keeps_best * parameters
    if network.config.training.on_divergence == "rollback":
        kept += state
    drawing = max((parameter.size for parameter in network.program.parameters), default=0)
    return kept + max(
        drawing * (DRAWN + DRAWN_COPIES * itemsize), state * SAVED_COPIES, _to_measure(network, max(rows))
    )


def require_to_measure(network: Network, rows: int) -> None:
    """SystemFault where memory has no room for the outputs of so many rows and what is made of them."""
    memory.require(
        _to_measure(network, rows), f"The outputs for {rows:,} rows take", "split the rows between several files"
    )


def _to_measure(network: Network, rows: int) -> int:
    output = network.dtype.itemsize + (0 if network.coding.softmax else MAPPED_OUTPUT)
    return rows * (MEASURED_ROW + network.coding.outputs * output)
