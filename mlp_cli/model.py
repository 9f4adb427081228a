"""A trained network together with everything it needs to meet raw rows: config, task, preprocessing.

It comes from one checkpoint file and asks for nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlp_cli import config as configs
from mlp_cli import data, saved
from mlp_cli.data import Batch, Dataset, Preprocessing, Reading, Split, Task
from mlp_cli.errors import OptionError
from mlp_cli.network import footprint
from mlp_cli.network.coding import Coding, class_weights, code
from mlp_cli.network.machine import Machine, Rows
from mlp_cli.network.network import Network
from mlp_cli.progress import Progress
from mlp_cli.runs import checkpoint as checkpoints
from mlp_cli.saved import PREPROCESSING
from mlp_cli.vocab import CLASS_ACTIVATIONS, CLASS_LOSSES


@dataclass
class Model:
    """A network and its surroundings. `class_weights` are those of the training rows."""

    config: object
    task: Task
    preprocessing: Preprocessing
    coding: Coding
    network: Network
    class_weights: np.ndarray | None = None

    @classmethod
    def new(cls, config, dataset, training_threads: int | None = None) -> "Model":
        """A model for a data set, with initial weights.

        SystemFault where memory has no room for it or, if it is to be trained in so many threads, for its training.
        """
        coding = code(config, dataset.task)
        network = Network(config, dataset.train.x.shape[1], coding)
        targets = dataset.train.target if coding.classes else np.zeros(0, np.int32)
        weights = class_weights(config, dataset.task, targets)
        model = cls(config, dataset.task, dataset.preprocessing, coding, network, weights)
        if training_threads is not None:
            needed = model.memory_to_train(dataset, training_threads)
            footprint.require_to_train(network, needed, is_mapped=dataset.train.is_mapped)
        network.initialize(config.seed)
        return model

    @classmethod
    def from_checkpoint(cls, checkpoint: checkpoints.Checkpoint) -> "Model":
        """The model that a checkpoint holds. CheckpointError where anything in it does not hold together."""
        model, _ = cls.described(checkpoint)
        model.network.allocate()
        model.network.load(checkpoint.tensors, str(checkpoint.path))
        return model

    @classmethod
    def described(cls, checkpoint: checkpoints.Checkpoint) -> tuple["Model", Progress]:
        """(the model, its network without numbers; where its run stood), once all of the checkpoint is checked.

        CheckpointError where anything in it does not hold together. A description that promises millions of units
        takes no memory.
        """
        meta, tensors, source = checkpoint.meta, checkpoint.tensors, str(checkpoint.path)
        with saved.refused(source):
            saved.check_names(meta)
            config = configs.from_resolved(meta["config"])
            arrays = {
                name.removeprefix(PREPROCESSING): value
                for name, value in tensors.items()
                if name.startswith(PREPROCESSING)
            }
            preprocessing = Preprocessing.from_state(meta["preprocessing"], arrays)
            task = preprocessing.task
            coding = code(config, task)
            position = saved.check_facts(meta, config, task)
            weights = saved.read_class_weights(meta["class_weights"], config, task, coding)
            if preprocessing.reading != Reading.of(config.data):
                raise ValueError("preprocessing.reading does not fit data")
            if preprocessing.dtype != config.dtype:
                raise ValueError(f"its preprocessing gives {preprocessing.dtype}, its network takes {config.dtype}")
            network = Network(config, len(preprocessing.feature_names), coding, allocate=False)
            saved.check_tensors(tensors, network, position, source)
        return cls(config, task, preprocessing, coding, network, weights), position

    @classmethod
    def open(cls, path: Path) -> "Model":
        """The model of a checkpoint file."""
        return cls.from_checkpoint(checkpoints.read(path))

    def state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What a checkpoint keeps of the model: (JSON part, tensors)."""
        described, arrays = self.preprocessing.state()
        config = self.config.resolved()
        # where the rows were, in memory or in a mapped file, makes no difference to what was learned
        del config["data"]["memory"]
        meta = {
            "config": config,
            "preprocessing": described,
            "classes": None if self.task.classes is None else list(self.task.classes),
            "class_weights": None if self.class_weights is None else [float(w) for w in self.class_weights],
        }
        tensors = self.network.tensors()
        tensors |= {f"{PREPROCESSING}{name}": array for name, array in arrays.items()}
        return meta, tensors

    def memory_to_train(self, dataset: Dataset, threads: int) -> int:
        """Bytes that training on this data set takes at its largest, besides the data."""
        rows = [len(part.x) for part in (dataset.train, dataset.validation, dataset.test) if part is not None]
        keeps_best = dataset.validation is not None and self.config.training.restore_best is not False
        return footprint.to_train(self.network, rows, threads, keeps_best)

    def machine(self, threads: int) -> Machine:
        """The network at work, in at most so many threads."""
        return Machine(self.network, threads)

    def rows(self, part: Split | Batch) -> Rows:
        """A part of the data as the kernels take it; targets may be absent in a batch to predict."""
        weight = None if part.weight is None else np.ascontiguousarray(part.weight, np.float64)
        if part.target is None:
            return Rows(part.x, metric_weights=weight)
        if self.coding.classes:
            classes = np.ascontiguousarray(part.target, np.int32)
            loss_weight = weight
            if self.class_weights is not None:
                loss_weight = self.class_weights[classes] * (1.0 if weight is None else weight)
            return Rows(part.x, classes=classes, loss_weights=loss_weight, metric_weights=weight)
        scaled = part.target - self.task.target_shift
        scaled /= self.task.target_scale
        values = np.ascontiguousarray(scaled, self.network.dtype)
        return Rows(part.x, values=values, loss_weights=weight, metric_weights=weight)

    @property
    def is_unscaled(self) -> bool:
        """Whether regression outputs are in the user's units as they are."""
        return bool(np.all(self.task.target_scale == 1.0) and np.all(self.task.target_shift == 0.0))

    def unscaled(self, outputs: np.ndarray) -> np.ndarray:
        """Regression outputs (n, k) in the user's units, float64."""
        values = outputs.astype(np.float64)
        values *= self.task.target_scale
        values += self.task.target_shift
        return values


def load_data(config, memory: str | None = None) -> Dataset:
    """The rows of a config's data section; `memory` as for `data.load`.

    DataError where a file is at fault, ConfigError where the config is.
    """
    try:
        return data.load(config.data, config.seed, config.dtype, numbers_are_classes(config), memory)
    except OptionError as error:
        raise config.error(error.key, error.message) from None


def numbers_are_classes(config) -> bool:
    """Whether output layer or loss take numeric targets for class numbers."""
    last = config.network.layers[-1].activation.name
    return last in CLASS_ACTIVATIONS or config.loss.name in CLASS_LOSSES
