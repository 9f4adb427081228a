"""PyTorch, eager: the loop of its tutorials, on tensors in memory instead of a DataLoader, which is slower."""

import time
from itertools import pairwise

from benchmarks.peers import RATE, installed_version

NAME = "PyTorch"
INTERPRETED = True


def available() -> str | None:
    """PyTorch's version, if it is installed."""
    return installed_version("torch")


def environment(threads: int) -> dict[str, str]:
    """Nothing: threads are set by a call."""
    return {}


def takes(batch: int, threads: int) -> bool:
    """Any batch, any number of threads."""
    return True


class Peer:
    """A Sequential of Linear and ReLU under cross_entropy, with torch.optim.SGD as it comes."""

    def __init__(self, sizes, batch, x, y, threads):
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch, self.batch = torch, batch
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y).long()
        layers = []
        for inputs, units in pairwise(sizes):
            layers += [nn.Linear(inputs, units), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)

    def epoch(self) -> float:
        """Train on all rows once; the seconds it took."""
        began = time.perf_counter()
        for rows in self.torch.randperm(len(self.x)).split(self.batch):
            loss = self.loss(self.model(self.x.index_select(0, rows)), self.y.index_select(0, rows))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return time.perf_counter() - began
