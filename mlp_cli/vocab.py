"""The words of the YAML and their integer codes.

Kernels, schema, error messages, tests and the reference page all walk these tables. Codes are append-only: they
stand in compiled programs, and a word keeps its number for ever.
"""

ACTIVATIONS = {
    "linear": 0,
    "threshold": 1,
    "sigmoid": 2,
    "tanh": 3,
    "relu": 4,
    "leaky_relu": 5,
    "elu": 6,
    "selu": 7,
    "gelu": 8,
    "silu": 9,
    "mish": 10,
    "softplus": 11,
    "softsign": 12,
    "hard_sigmoid": 13,
    "hard_tanh": 14,
    "sin": 15,
    "gaussian": 16,
    "exponential": 17,
    "softmax": 18,
    "hardmax": 19,
}

LOSSES = {
    "quadratic": 0,
    "half_quadratic": 1,
    "mse": 2,
    "mae": 3,
    "huber": 4,
    "log_cosh": 5,
    "quantile": 6,
    "poisson": 7,
    "binary_cross_entropy": 8,
    "cross_entropy": 9,
    "focal": 10,
    "hinge": 11,
    "squared_hinge": 12,
}

OPTIMIZERS = {
    "sgd": 0,
    "adagrad": 1,
    "adadelta": 2,
    "rmsprop": 3,
    "adam": 4,
    "adamw": 5,
    "adamax": 6,
    "nadam": 7,
    "radam": 8,
    "lion": 9,
    "rprop": 10,
}

SCHEDULES = (
    "constant",
    "step",
    "multistep",
    "exponential",
    "polynomial",
    "cosine",
    "cosine_restarts",
    "one_cycle",
    "flat_cosine",
    "coslog",
    "plateau",
    "inverse_time",
    "inverse_scaling",
)

# Schedules that stretch to the end of the run.
NEED_TOTAL = ("polynomial", "cosine", "one_cycle", "flat_cosine", "coslog")

INITIALIZERS = (
    "zeros",
    "constant",
    "normal",
    "uniform",
    "truncated_normal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
)

LAYERS = (
    "dense",
    "residual",
    "highway",
    "concat",
    "layer_norm",
    "batch_norm",
    "positional_encoding",
)

# Losses that are computed from the output layer's pre-activations when they meet this activation: stable for any
# finite input, and with the simple gradient of the pair.
FUSED = {
    ("softmax", "cross_entropy"),
    ("sigmoid", "binary_cross_entropy"),
    ("exponential", "poisson"),
    ("softmax", "focal"),
    ("sigmoid", "focal"),
}

# Under one of these, numeric targets are class numbers unless data.task says otherwise.
CLASS_ACTIVATIONS = {"softmax"}
CLASS_LOSSES = {"cross_entropy", "binary_cross_entropy", "focal", "hinge", "squared_hinge"}

# Every random number is a pure function of (seed, stream, epoch, logical index).
STREAMS = {
    "split": 1,
    "init": 2,
    "shuffle": 3,
    "draw": 4,
    "dropout": 5,
    "noise": 6,
    "check": 7,
}

# Activations whose gradient is that of the identity, since their own is 0 everywhere.
STRAIGHT_THROUGH = {"threshold", "hardmax"}
