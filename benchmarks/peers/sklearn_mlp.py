"""scikit-learn: MLPClassifier by plain gradient descent, an epoch at a time through partial_fit."""

import time

import numpy as np

from benchmarks.peers import RATE, installed_version

NAME = "scikit-learn"
INTERPRETED = True


def available() -> str | None:
    """scikit-learn's version, if it is installed."""
    return installed_version("scikit-learn")


def environment(threads: int) -> dict[str, str]:
    """Nothing: threads are set by a call."""
    return {}


def takes(batch: int, threads: int) -> bool:
    """Any batch, any number of threads."""
    return True


class Peer:
    """float32 rows keep it in float32. partial_fit shuffles and trains one epoch, as each epoch of fit does."""

    def __init__(self, sizes, batch, x, y, threads):
        from sklearn.neural_network import MLPClassifier
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
        self.x, self.y, self.classes = x, y, np.arange(sizes[-1])
        self.model = MLPClassifier(
            hidden_layer_sizes=tuple(sizes[1:-1]),
            activation="relu",
            solver="sgd",
            learning_rate_init=RATE,
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
            batch_size=batch,
            random_state=0,
        )

    def epoch(self) -> float:
        """Train on all rows once; the seconds it took."""
        began = time.perf_counter()
        self.model.partial_fit(self.x, self.y, classes=self.classes)
        return time.perf_counter() - began
