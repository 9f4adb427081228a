"""What must fit together within the network: widths, given weights, and the place of each layer."""

from mlp_cli.config.schema_network import Dense
from mlp_cli.config.tree import Problem

LAYERS = ("network", "layers")
ONE_WINNER = ("softmax", "hardmax")


def network_problems(config):
    """Every Problem of the network alone."""
    layers = config.network.layers
    yield from _output_problems(layers[-1], (*LAYERS, len(layers) - 1))
    for path, layer in walk(layers, LAYERS):
        if isinstance(layer, Dense):
            yield from _dense_problems(path, layer, is_output=layer is layers[-1])
        if hasattr(layer, "activation"):
            yield from _activation_problems(path, layer.activation)
    yield from Widths().problems(layers, None, LAYERS)


def walk(layers, path):
    """(path, layer) of every layer, those in blocks included."""
    for index, layer in enumerate(layers):
        yield (*path, index), layer
        yield from walk(getattr(layer, "layers", ()), (*path, index, "layers"))


def _output_problems(output, path):
    if output.kind != "dense":
        message = f"the last layer is the output layer and must be dense; got {output.kind}"
        yield Problem((*path, "kind"), message, involves=(LAYERS,))
    elif output.dropout > 0:
        yield Problem((*path, "dropout"), "the output layer cannot drop its outputs: remove dropout here")


def _dense_problems(path, layer, is_output):
    units, rows, biases = layer.units, len(layer.weights or ()), len(layer.bias or ())
    if units is None and not is_output:
        yield Problem((*path, "units"), "expected units; only the last layer may leave them to the data")
    for index, row in enumerate(layer.weights or ()):
        if len(row) != len(layer.weights[0]):
            message = f"expected a row as long as the first, {len(layer.weights[0])}; got {len(row)}"
            yield Problem((*path, "weights", index), message)
    if rows and rows != units:
        message = f"expected as many rows as units, {units}; got {rows}"
        yield Problem((*path, "weights"), message, involves=((*path, "units"), (*path, "bias")))
    if biases and rows and biases != rows:
        message = f"expected as many numbers as weights has rows, {rows}; got {biases}"
        yield Problem((*path, "bias"), message, involves=((*path, "weights"),))
    elif biases and biases != units:
        message = f"expected as many numbers as units, {units}; got {biases}"
        yield Problem((*path, "bias"), message, involves=((*path, "units"),))
    for numbers, init in (("weights", "init"), ("bias", "bias_init")):
        if getattr(layer, numbers) is not None and init in layer.model_fields_set:
            message = f"{numbers} gives the numbers themselves: remove {init} or {numbers}"
            yield Problem((*path, init), message, involves=((*path, numbers),))
    if layer.activation.name in ONE_WINNER and units == 1:
        message = f"{layer.activation.name} of one unit is always 1: give it two or more units, or use sigmoid"
        yield Problem((*path, "units"), message, involves=((*path, "activation"), (*path, "weights")))


def _activation_problems(path, activation):
    if activation.name == "threshold" and activation.low >= activation.high:
        message = f"expected low < high; got low {activation.low} and high {activation.high}"
        key = "low" if "low" in activation.model_fields_set else "high"
        yield Problem((*path, "activation", key), message, involves=((*path, "activation"),))


class Widths:
    """Follows the width of the data through the layers as far as the config alone tells it."""

    def problems(self, layers, width, path):
        """Problems of layers that do not fit what comes in; leaves the width that goes out in `self.width`."""
        for index, layer in enumerate(layers):
            yield from self._layer(layer, width, (*path, index))
            width = self.width
        self.width = width

    def _layer(self, layer, width, path):
        inner = (*path, "layers")
        if layer.kind == "dense":
            columns = len(layer.weights[0]) if layer.weights else width
            if width is not None and columns != width:
                message = f"expected rows as long as what comes in is wide, {width}; got {columns}"
                yield Problem((*path, "weights"), message, involves=(LAYERS,))
            self.width = layer.units
        elif layer.kind == "residual":
            yield from self.problems(layer.layers, width, inner)
            if width is not None and self.width is not None and self.width != width:
                message = f"f(x) must be as wide as x, to be added to it: x has {width} columns, f(x) {self.width}"
                yield Problem(inner, message, involves=(LAYERS,))
            self.width = width if width is not None else self.width
        elif layer.kind == "concat":
            yield from self.problems(layer.layers, width, inner)
            self.width = None if width is None or self.width is None else width + self.width
        elif layer.kind == "positional_encoding":
            self.width = None if width is None else 2 * layer.frequencies * width
        else:
            self.width = width
