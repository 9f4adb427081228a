"""mlp: a JIT-compiled command-line trainer for multilayer perceptrons."""

__version__ = "0.1.0"
