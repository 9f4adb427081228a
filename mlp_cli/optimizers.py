"""The coefficients of every optimizer step, in float64: learning rate, decay, bias corrections.

A row of the table belongs to one update; `kernels.optimizers` says in which column it looks for what. Powers are
products in a fixed order, so that the same update has the same bits on every processor.
"""

from functools import lru_cache

import numpy as np

from mlp_cli import numerics
from mlp_cli.vocab import OPTIMIZERS

COLUMNS, PLAIN_COLUMNS = 10, 2
# Dozat 2016; PyTorch's default.
NADAM_DECAY = 4e-3
# The rectification of RAdam is defined from this length of the simple moving average on (Liu et al. 2020).
RADAM_THRESHOLD = 5.0
# Powers are computed, and kept, for so many updates at a time: an epoch of a small net has few.
POWER_BLOCK = 4096

# Which moments are sums or means of squares, or sizes of steps, and so never negative.
SQUARES = {
    "adagrad": ("moment1",),
    "adadelta": ("moment1", "moment2"),
    "rmsprop": ("moment1",),
    "adam": ("moment2",),
    "adamw": ("moment2",),
    "adamax": ("moment2",),
    "nadam": ("moment2",),
    "radam": ("moment2",),
    "rprop": ("moment2",),
}


def is_plain(optimizer) -> bool:
    """Whether this is gradient descent without moments."""
    return optimizer.name == "sgd" and optimizer.momentum == 0.0


def kernel_code(optimizer, plain_code: int) -> int:
    """The optimizer's code for the kernels."""
    return plain_code if is_plain(optimizer) else OPTIMIZERS[optimizer.name]


def weight_decay(config) -> float:
    """The decoupled weight decay: what the config says, else 0.01 for adamw and 0 for all others."""
    stated = config.regularization.weight_decay
    if stated is not None:
        return float(stated)
    return 0.01 if config.optimizer.name == "adamw" else 0.0


def step_coefficients(config, rates: np.ndarray, first: int) -> np.ndarray:
    """The coefficients of updates first, first + 1, … with these learning rates: float64 (len(rates), COLUMNS).

    Plain descent has PLAIN_COLUMNS only: one sample a step, the table is not much smaller than the data.
    """
    optimizer = config.optimizer
    table = np.zeros((len(rates), PLAIN_COLUMNS if is_plain(optimizer) else COLUMNS))
    update = np.arange(first, first + len(rates), dtype=np.int64)
    fill = _FILL.get(optimizer.name)
    # options may be of any size: where a coefficient overflows, the weights will, and the run says that it diverged
    with np.errstate(all="ignore"):
        table[:, 0] = rates
        table[:, 1] = 1.0 - rates * weight_decay(config)
        if fill and not is_plain(optimizer):
            fill(table, optimizer, rates, update, config)
    return table


def powers(base: float, update: np.ndarray) -> np.ndarray:
    """base ** update for consecutive updates, float64."""
    blocks = range(int(update[0]) // POWER_BLOCK, int(update[-1]) // POWER_BLOCK + 1)
    found = np.concatenate([_power_block(base, block) for block in blocks])
    begin = int(update[0]) - blocks[0] * POWER_BLOCK
    return found[begin : begin + len(update)]


@lru_cache(maxsize=8)
def _power_block(base: float, block: int) -> np.ndarray:
    return numerics.integer_power(base, np.arange(block * POWER_BLOCK, (block + 1) * POWER_BLOCK))


def _sgd(table, optimizer, rates, update, config):
    table[:, 2], table[:, 3] = optimizer.momentum, float(optimizer.nesterov)


def _adagrad(table, optimizer, rates, update, config):
    table[:, 2] = optimizer.epsilon


def _adadelta(table, optimizer, rates, update, config):
    table[:, 2], table[:, 3], table[:, 4] = optimizer.rho, 1.0 - optimizer.rho, optimizer.epsilon


def _rmsprop(table, optimizer, rates, update, config):
    _adadelta(table, optimizer, rates, update, config)
    table[:, 5] = optimizer.momentum


def _betas(table, optimizer):
    table[:, 2], table[:, 3] = optimizer.beta1, 1.0 - optimizer.beta1
    table[:, 4], table[:, 5] = optimizer.beta2, 1.0 - optimizer.beta2


def _adam(table, optimizer, rates, update, config):
    """Kingma & Ba 2015, with epsilon outside the corrected root as in PyTorch."""
    _betas(table, optimizer)
    table[:, 6] = optimizer.epsilon
    table[:, 7] = rates / (1.0 - powers(optimizer.beta1, update))
    table[:, 8] = 1.0 / np.sqrt(1.0 - powers(optimizer.beta2, update))


def _nadam(table, optimizer, rates, update, config):
    """mu_t = beta1 (1 - ½ 0.96^(t · 4e-3)); the products of all mu up to t are taken from the first update on."""
    _adam(table, optimizer, rates, update, config)
    mu, products = _momenta(optimizer.beta1, int(update[0]), len(update) + 1)
    table[:, 7] = rates * (1.0 - mu[:-1]) / (1.0 - products[:-1])
    table[:, 9] = rates * mu[1:] / (1.0 - products[1:])


def _momenta(beta1: float, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """mu_t for t = first, first + 1, …, and the products of all mu up to each of them: float64 (count,)."""
    blocks = range((first - 1) // POWER_BLOCK, (first + count - 2) // POWER_BLOCK + 1)
    found = np.concatenate([_momentum_block(beta1, block) for block in blocks], axis=1)
    begin = first - 1 - blocks[0] * POWER_BLOCK
    return tuple(found[:, begin : begin + count])


@lru_cache(maxsize=8)
def _momentum_block(beta1: float, block: int) -> np.ndarray:
    """mu and its products for a block of updates, float64 (2, POWER_BLOCK)."""
    before = _PRODUCTS_BEFORE.setdefault(beta1, [1.0])
    while len(before) <= block:
        before.append(_products(beta1, len(before) - 1, before[-1])[1, -1])
    return _products(beta1, block, before[block])


# By beta1: the product of all mu that come before each block.
_PRODUCTS_BEFORE: dict[float, list[float]] = {}


def _products(beta1: float, block: int, before: float) -> np.ndarray:
    steps = np.arange(block * POWER_BLOCK + 1, (block + 1) * POWER_BLOCK + 1, dtype=np.float64)
    mu = beta1 * (1.0 - 0.5 * numerics.exp(steps * NADAM_DECAY * numerics.log(np.float64(0.96))))
    return np.stack([mu, np.cumprod(np.concatenate([[before], mu]))[1:]])


def _radam(table, optimizer, rates, update, config):
    """rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t); above 5 the step is rectified, else it is plain momentum."""
    _betas(table, optimizer)
    table[:, 6] = optimizer.epsilon
    beta2_power = powers(optimizer.beta2, update)
    longest = 2.0 / (1.0 - optimizer.beta2) - 1.0
    length = longest - 2.0 * update * beta2_power / (1.0 - beta2_power)
    rectified = length > RADAM_THRESHOLD
    safe = np.where(rectified, length, RADAM_THRESHOLD + 1.0)
    ratio = (safe - 4.0) * (safe - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * safe)
    factor = np.sqrt(np.maximum(ratio, 0.0)) * np.sqrt(1.0 - beta2_power)
    plain = rates / (1.0 - powers(optimizer.beta1, update))
    table[:, 7] = np.where(rectified, plain * factor, plain)
    table[:, 8] = rectified


def _lion(table, optimizer, rates, update, config):
    _betas(table, optimizer)


def _rprop(table, optimizer, rates, update, config):
    """The first step size is the initial rate; a schedule scales all steps relative to it."""
    table[:, 2] = rates / rprop_initial(config)


def rprop_initial(config) -> float:
    """The step size that rprop starts every parameter with."""
    initial = getattr(config.learning_rate, "initial", None)
    return float(initial) if initial else 1e-2


_FILL = {
    "sgd": _sgd,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adam,
    "adamax": _adam,
    "nadam": _nadam,
    "radam": _radam,
    "lion": _lion,
    "rprop": _rprop,
}
