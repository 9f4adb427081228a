"""JAX: a whole epoch as one compiled call, a `lax.scan` over the batches that updates donated parameters in place."""

import functools
import time
from itertools import pairwise

import numpy as np

from benchmarks.peers import RATE, installed_version

NAME = "JAX"
INTERPRETED = False
# Rows of fewer bytes in all are permuted at once; beyond the caches it is faster to gather each batch in its step.
# (8-16-2 batch 1: 0.74 µs a sample at once, 0.84 in the step; 784-128-10 batch 32: 4.0 and 2.9.)
AT_ONCE = 4 << 20


def available() -> str | None:
    """JAX's version, if it is installed."""
    return installed_version("jax")


def environment(threads: int) -> dict[str, str]:
    """Keeps XLA to one thread; with more, it takes as many as there are cores to run on."""
    alone = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {"JAX_PLATFORMS": "cpu", **({"XLA_FLAGS": alone} if threads == 1 else {})}


def takes(batch: int, threads: int) -> bool:
    """Any batch, any number of threads."""
    return True


class Peer:
    """Matrices and biases in a list, cross-entropy from log_softmax and one_hot (which measured faster than indexing).

    The order of the rows is drawn by NumPy, since jax.random.permutation sorts and takes longer.
    """

    def __init__(self, sizes, batch, x, y, threads):
        import jax

        self.jax, self.random = jax, np.random.default_rng(0)
        self.x, self.y = jax.device_put(x), jax.device_put(y)
        self.parameters = jax.device_put([self._layer(*shape) for shape in pairwise(sizes)])
        self.run = _compiled_epoch(sizes[-1], batch, at_once=x.nbytes < AT_ONCE)

    def _layer(self, inputs: int, units: int) -> tuple[np.ndarray, np.ndarray]:
        weights = self.random.normal(0.0, np.sqrt(2.0 / inputs), (inputs, units))
        return weights.astype(np.float32), np.zeros(units, np.float32)

    def epoch(self) -> float:
        """Train on all rows once; the seconds it took. The first call compiles."""
        began = time.perf_counter()
        order = self.random.permutation(len(self.x)).astype(np.int32)
        self.parameters, self.loss = self.run(self.parameters, self.x, self.y, order)
        self.jax.block_until_ready((self.parameters, self.loss))
        return time.perf_counter() - began


def _compiled_epoch(classes: int, batch: int, at_once: bool):
    """A function (parameters, x, y, order) -> (parameters, mean loss)."""
    import jax
    import jax.numpy as jnp

    def loss_of(parameters, x, y):
        for weights, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weights + bias)
        weights, bias = parameters[-1]
        logs = jax.nn.log_softmax(x @ weights + bias)
        return -jnp.mean(jnp.sum(jax.nn.one_hot(y, classes) * logs, axis=1))

    def step(parameters, x, y):
        loss, gradient = jax.value_and_grad(loss_of)(parameters, x, y)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(parameters, x, y, order):
        if at_once:
            batches = (x[order].reshape(-1, batch, x.shape[1]), y[order].reshape(-1, batch))
            parameters, losses = jax.lax.scan(lambda p, rows: step(p, *rows), parameters, batches)
        else:
            parameters, losses = jax.lax.scan(lambda p, i: step(p, x[i], y[i]), parameters, order.reshape(-1, batch))
        return parameters, jnp.mean(losses)

    return epoch
