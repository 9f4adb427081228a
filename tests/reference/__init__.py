"""The naive twin: the contract's formulas in plain, slow NumPy float64, written without a look at the product.

Tests compare the product with it: `ref = reference.f(...)`, `comp = mlp_cli.f(...)`. It imports nothing of mlp_cli,
and where a textbook formula and a fast one differ it keeps the textbook's. One letter per thing, everywhere:
x inputs (n, d), z pre-activations and y outputs (n, k), t targets (n, k), w sample weights (n,), da the gradient of a.
"""

from . import activations, layers, losses, optimizers
from .trainer import Trainer, encode, random_weights

__all__ = ["Trainer", "activations", "encode", "layers", "losses", "optimizers", "random_weights"]
