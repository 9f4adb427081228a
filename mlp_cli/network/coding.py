"""How targets meet the output units: classes as numbers, and outputs as probabilities."""

from dataclasses import dataclass

import numpy as np

from mlp_cli.kernels import layout
from mlp_cli.vocab import FUSED
from mlp_cli.wording import listed, quoted

HINGE_LOSSES = ("hinge", "squared_hinge")
MOST_CONFUSED = 256  # classes; a confusion matrix of more would not be kept while training
BLOCK_ROWS = 1 << 16  # to judge at a time, since NumPy finds numbers twice as long as those that are kept
# Above which pre-activation the output is above 1/2; a softmax has no single unit.
FUSED_MIDDLE = {"sigmoid": 0.0, "exponential": -0.6931471805599453, "softmax": 0.0}


@dataclass(frozen=True)
class Coding:
    """The meeting of a task with an output layer.

    outputs: units of the output layer. single: two classes in one unit. low, high: the coding of "not this class" and
    "this class"; middle decides in the single-unit case, on what the loss is computed from.
    """

    outputs: int
    classes: int  # 0 for regression
    single: bool = False
    low: float = 0.0
    high: float = 1.0
    middle: float = 0.5
    smoothing: float = 0.0
    softmax: bool = False

    @property
    def target_low(self) -> float:
        """The low target after label smoothing: e / K, or e / 2 for units that stand alone."""
        return self.low + (self.high - self.low) * self.smoothing / self._spread

    @property
    def target_high(self) -> float:
        """The high target after label smoothing: 1 - e + e / K."""
        return self.high - (self.high - self.low) * (self.smoothing - self.smoothing / self._spread)

    @property
    def keeps_confusion(self) -> bool:
        """Whether an epoch's running sums have a confusion matrix."""
        return 0 < self.classes <= MOST_CONFUSED

    @property
    def totals_size(self) -> int:
        """How many running sums an epoch has (`layout`)."""
        body = self.classes**2 * self.keeps_confusion if self.classes else self.outputs * layout.TARGET_TOTALS
        return layout.TOTALS_HEAD + body

    @property
    def _spread(self) -> int:
        return self.classes if self.softmax else 2

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (n, units) as probabilities (n, classes).

        A softmax output is one already, and comes back as it is. Others are mapped, in float64, from the coding to
        0 … 1, clipped, and made to sum to 1 (evenly where all are 0).
        """
        if self.softmax:
            return np.asarray(outputs)
        outputs = np.asarray(outputs, np.float64)
        share = np.clip((outputs - self.low) / (self.high - self.low), 0.0, 1.0)
        if self.single:
            return np.concatenate([1.0 - share, share], axis=1)
        # C order: NumPy adds the classes of a row pairwise, whatever the number of rows
        total = share.sum(axis=1, keepdims=True)
        even = np.full_like(share, 1.0 / self.classes)
        return np.divide(share, total, out=even, where=total > 0)

    def predicted(self, outputs: np.ndarray) -> np.ndarray:
        """The class of each row of outputs (n, units): the largest, ties to the lowest; or above the middle."""
        if self.single:
            return (np.asarray(outputs)[:, 0] > (self.low + self.high) / 2).astype(np.int32)
        found = np.empty(len(outputs), np.int32)
        for start in range(0, len(outputs), BLOCK_ROWS):
            found[start : start + BLOCK_ROWS] = np.argmax(outputs[start : start + BLOCK_ROWS], axis=1)
        return found


def code(config, task) -> Coding:
    """The coding of a task under the config's output layer and loss.

    ConfigError where the output layer's units contradict the target, or the loss has no meaning for the task.
    """
    last = config.network.layers[-1]
    activation, loss = last.activation.name, config.loss.name
    where = f"network.layers.{len(config.network.layers) - 1}.units"
    if task.kind == "regression":
        if config.loss.class_weights is not None:
            raise config.error("loss.class_weights", "the task is a regression, which has no classes; leave it out")
        if config.data.target_coding == "bipolar":
            raise config.error(
                "data.target_coding", "bipolar codes classes, but the task is a regression; leave it out"
            )
        wanted = len(task.targets)
        if last.units not in (None, wanted):
            raise config.error(
                where,
                f"expected {wanted}, one for each target ({listed(task.targets)}); got {last.units}. "
                "Leave units out of the last layer, or list more targets in data.target",
            )
        return Coding(outputs=wanted, classes=0)
    classes = len(task.classes)
    separate = activation not in ("softmax", "hardmax")
    allowed = (1, 2) if classes == 2 and separate else (classes,)
    if last.units is not None and last.units not in allowed:
        expected = " or ".join(str(n) for n in allowed)
        raise config.error(
            where,
            f"expected {expected} for the {classes} classes of {quoted(task.targets[0])}; got {last.units}. "
            "Leave units out of the last layer: they follow from the data",
        )
    units = last.units or allowed[0]
    bipolar = config.data.target_coding == "bipolar" or loss in HINGE_LOSSES
    low, high = (-1.0, 1.0) if bipolar else (0.0, 1.0)
    if not bipolar and activation == "threshold" and last.activation.low < 0:
        raise config.error(
            where.replace("units", "activation.low"),
            f"binary targets are 0 and 1, but the output goes down to {last.activation.low:g}: set data.target_coding "
            "to bipolar",
        )
    return Coding(
        outputs=units,
        classes=classes,
        single=units == 1,
        low=low,
        high=high,
        # a fused loss sees pre-activations
        middle=FUSED_MIDDLE[activation] if (activation, loss) in FUSED else (low + high) / 2,
        smoothing=getattr(config.loss, "label_smoothing", 0.0),
        softmax=activation == "softmax",
    )


def class_weights(config, task, targets: np.ndarray) -> np.ndarray | None:
    """A weight for each class (K,): stated, or rows / (K · rows of the class) when balanced; None when all are 1."""
    stated = config.loss.class_weights
    if stated is None or task.kind == "regression":
        return None
    classes = len(task.classes)
    if stated == "balanced":
        counts = np.bincount(targets, minlength=classes)
        return len(targets) / (classes * np.maximum(counts, 1))
    unknown = [name for name in stated if str(name) not in task.classes]
    if unknown:
        raise config.error(
            "loss.class_weights",
            f"{quoted(unknown[0])} is not a class of {quoted(task.targets[0])}; the classes are {listed(task.classes)}",
        )
    by_name = {str(name): float(weight) for name, weight in stated.items()}
    return np.array([by_name.get(name, 1.0) for name in task.classes])
