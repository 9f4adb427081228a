"""Checks backpropagation of the very network that a config describes, against central differences in float64."""

from dataclasses import dataclass

import numpy as np

from mlp_cli import rng
from mlp_cli.model import Model
from mlp_cli.network.machine import Machine
from mlp_cli.network.program import Parameter
from mlp_cli.vocab import STRAIGHT_THROUGH

# Rows of the batch, and weights of each parameter that are compared.
ROWS = 32
WEIGHTS = 40
# The first step of the differences; smaller ones follow where a kink lies within it.
STEPS = (1e-5, 1e-6, 1e-7)
# An analytic derivative may differ from the difference by this part of the block's largest derivative.
TOLERANCE = 1e-5
# A loss is rounded in its last places, and a difference of two losses inherits that, over the step.
ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass
class Block:
    """The comparison for one parameter: how many weights, their relative error, kinks met, and a remark."""

    name: str
    shape: tuple[int, ...]
    compared: int
    error: float
    kinks: int
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether the block agrees, or cannot be compared."""
        return self.error <= TOLERANCE or bool(self.remark)


def check_gradients(model: Model, part) -> list[Block]:
    """Compare the gradient of every parameter of a float64 model, on the first rows of `part`.

    The relative error of a block is the largest |analytic - difference| over the largest |derivative| in it. Dropout
    and noise are on, with the random numbers of the first batch. Where a difference crosses a kink (a ReLU at 0), the
    slopes on its two sides disagree and shrinking the step does not help: such weights are counted, not compared.
    """
    machine = Machine(model.network, threads=1)
    rows = model.rows(part)
    batch = min(ROWS, len(rows))
    machine.prepare_training(rows, batch, check=True)
    order = np.arange(batch, dtype=np.uint32)
    machine.loss_of_batch(order, gradient=True)
    gradient = machine.gradient.copy()
    # dropout and noise are drawn by epoch and row, so every evaluation meets the same ones
    blocks = [
        _check_block(machine, model, parameter, number, gradient, order)
        for number, parameter in enumerate(model.network.training_program.parameters)
    ]
    machine.close()
    return blocks


def _check_block(machine: Machine, model: Model, parameter: Parameter, number: int, gradient, order) -> Block:
    remark = _remark(model, parameter)
    if remark:
        return Block(parameter.name, parameter.shape, 0, 0.0, 0, remark)
    places = _places(model, parameter, number)
    scale = max(float(np.max(np.abs(gradient[parameter.offset : parameter.offset + parameter.size]))), 1e-8)
    worst, kinks = 0.0, 0
    for place in places:
        error = _error(machine, model.network.parameters, place, float(gradient[place]), scale, order)
        if error is None:
            kinks += 1
        else:
            worst = max(worst, error)
    return Block(parameter.name, parameter.shape, len(places) - kinks, worst, kinks)


def _error(machine: Machine, flat: np.ndarray, place: int, analytic: float, scale: float, order) -> float | None:
    """The relative error at one weight, or None where it sits on a kink."""
    before = flat[place]
    middle = machine.loss_of_batch(order, gradient=False)
    error = np.inf
    jump = 0.0
    for step in STEPS:
        flat[place] = before + step
        above = machine.loss_of_batch(order, gradient=False)
        flat[place] = before - step
        below = machine.loss_of_batch(order, gradient=False)
        flat[place] = before
        off = abs((above - below) / (2 * step) - analytic)
        if off > TOLERANCE * scale:
            # derivatives that are tiny beside the loss drown in its rounding
            off = max(off - ROUNDING * abs(middle) / step, 0.0)
        error = min(error, off / scale)
        if error <= TOLERANCE:
            return error
        jump = abs(above - 2 * middle + below) / step
    # the slopes on the two sides differ by more than the error that is to be explained
    return None if jump >= error * scale else error


def _places(model: Model, parameter: Parameter, number: int) -> list[int]:
    """Flat indices of the weights to compare: all, or a random choice that the seed fixes."""
    count = parameter.count
    chosen = np.arange(count)
    if count > WEIGHTS:
        chosen = np.sort(rng.permutation(model.config.seed, "check", count, substream=number)[:WEIGHTS])
    columns = parameter.inputs if parameter.matrix else 1
    return [model.network.index(parameter, int(i) // columns, int(i) % columns) for i in chosen]


def _remark(model: Model, parameter: Parameter) -> str:
    """Why the gradient of a parameter is not a derivative, if it is not."""
    if not parameter.learns:
        return "frozen: has no gradient"
    last = _last_straight_through(model.config.network.layers)
    if last is not None and int(parameter.name.split(".")[1]) <= last:
        return "straight-through: a threshold or hardmax above passes the gradient as if it were linear"
    return ""


def _last_straight_through(layers) -> int | None:
    """The number of the last layer that holds a straight-through activation."""
    found = [number for number, layer in enumerate(layers) if _is_straight_through(layer)]
    return found[-1] if found else None


def _is_straight_through(layer) -> bool:
    activation = getattr(layer, "activation", None)
    inner = getattr(layer, "layers", [])
    return (activation is not None and activation.name in STRAIGHT_THROUGH) or any(map(_is_straight_through, inner))
