"""Initial parameters, in float64 arithmetic that is the same on every processor.

Each parameter draws from a random stream of its own, by logical index (unit, input): its numbers depend on the seed
and its place in the network, never on padding or on what was drawn before.
"""

import numpy as np

from mlp_cli import rng
from mlp_cli.network.program import Parameter

# Draws for a truncated normal distribution: the chance that 40 in a row lie outside is below 1e-50.
TRUNCATION_DRAWS = 40


def initial_value(config, parameter: Parameter, number: int, seed: int) -> np.ndarray:
    """The first value of parameter `number` of the network, float64, in its checkpoint shape.

    ConfigError where weights given as numbers do not have that shape.
    """
    if parameter.role == "gamma":
        return np.ones(parameter.shape)
    if parameter.role == "beta":
        return np.zeros(parameter.shape)
    layer = parameter.layer
    gate = ".gate." in parameter.name
    if parameter.role == "bias" and gate:
        return np.full(parameter.shape, float(layer.gate_bias))
    given = None if gate else getattr(layer, "weights" if parameter.matrix else "bias", None)
    if given is not None:
        return _given(config, parameter, given)
    init = layer.init if parameter.matrix else layer.bias_init
    return draw(init, parameter.shape, parameter.fans, seed, number)


def _given(config, parameter: Parameter, numbers) -> np.ndarray:
    array = np.array(numbers, np.float64)
    if array.shape != parameter.shape:
        key = parameter.name.rsplit(".", 1)[0] + (".weights" if parameter.matrix else ".bias")
        order = " (units, inputs)" if parameter.matrix else ""
        raise config.error(
            f"network.{key}", f"expected numbers of shape {parameter.shape}{order}; got shape {array.shape}"
        )
    return array


def draw(init, shape: tuple[int, ...], fans: tuple[int, int], seed: int, number: int) -> np.ndarray:
    """Numbers of `shape` from the initialiser `init`; fans are (inputs, units) of the layer.

    Glorot & Bengio 2010, He et al. 2015, LeCun et al. 1998; the normal ones are not truncated.
    """
    count = int(np.prod(shape))
    fan_in, fan_out = fans
    name = init.name
    if name == "zeros":
        return np.zeros(shape)
    if name == "constant":
        return np.full(shape, float(init.value))
    if name == "orthogonal":
        return orthogonal(shape, seed, number)
    if name == "truncated_normal":
        return _times(init.std, _truncated_normal(count, seed, number)).reshape(shape)
    if name == "normal":
        return _times(init.std, rng.normal(seed, "init", count, substream=number)).reshape(shape)
    if name == "uniform":
        limit = 1.0 / np.sqrt(float(fan_in)) if init.limit is None else float(init.limit)
        return _uniform(limit, count, seed, number).reshape(shape)
    family, _, kind = name.rpartition("_")
    variance = {"glorot": 2.0 / (fan_in + fan_out), "he": 2.0 / fan_in, "lecun": 1.0 / fan_in}[family]
    if kind == "normal":
        return _times(np.sqrt(variance), rng.normal(seed, "init", count, substream=number)).reshape(shape)
    return _uniform(np.sqrt(3.0 * variance), count, seed, number).reshape(shape)


def _uniform(limit: float, count: int, seed: int, number: int) -> np.ndarray:
    numbers = _times(2.0, rng.uniform(seed, "init", count, substream=number))
    numbers -= 1.0
    return _times(limit, numbers)


def _times(factor: float, numbers: np.ndarray) -> np.ndarray:
    """The numbers multiplied where they are: those of a large layer take a lot of memory."""
    numbers *= factor
    return numbers


def _truncated_normal(count: int, seed: int, number: int) -> np.ndarray:
    """Standard normal numbers within ±2: those outside are drawn again."""
    values = rng.normal(seed, "init", count, substream=number)
    for again in range(1, TRUNCATION_DRAWS):
        outside = np.abs(values) > 2.0
        if not outside.any():
            break
        values[outside] = rng.normal(seed, "init", count, substream=number, draw=again)[outside]
    return np.clip(values, -2.0, 2.0)


def orthogonal(shape: tuple[int, ...], seed: int, number: int) -> np.ndarray:
    """Orthonormal rows (or columns, if there are more rows): Gram and Schmidt's process on normal numbers, done twice.

    Saxe, McClelland & Ganguli 2014. LAPACK's result would depend on the processor. So would that of `@`: products are
    rounded, then added pairwise along a vector, and vector by vector.
    """
    rows, columns = shape if len(shape) == 2 else (1, *shape)
    numbers = rng.normal(seed, "init", rows * columns, substream=number).reshape(rows, columns)
    vectors = numbers if rows <= columns else np.ascontiguousarray(numbers.T)
    for i in range(len(vectors)):
        for _ in range(2):
            if i:
                overlap = np.sum(vectors[:i] * vectors[i], axis=1)
                vectors[i] -= np.sum(overlap[:, None] * vectors[:i], axis=0)
        vectors[i] /= np.sqrt(np.sum(vectors[i] * vectors[i]))
    result = vectors if rows <= columns else np.ascontiguousarray(vectors.T)
    return result.reshape(shape)
