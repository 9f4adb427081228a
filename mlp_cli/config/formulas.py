"""What every word of the config computes, for the reference page; a test sees that no word lacks its formula.

z is a pre-activation or, in the losses, an output; t a target, r = z - t, k the number of outputs; w a weight, g its
gradient, lr the learning rate; m and n are the fans into and out of a layer.
"""

ACTIVATIONS = {
    "linear": "z",
    "threshold": "high for z >= 0, else low; the gradient passes straight through",
    "sigmoid": "1 / (1 + exp(-z))",
    "tanh": "tanh z",
    "relu": "max(z, 0), slope 0 at 0",
    "leaky_relu": "z for z > 0, else alpha z",
    "elu": "z for z > 0, else alpha (exp(z) - 1)",
    "selu": "1.0507 z for z > 0, else 1.0507 * 1.6733 (exp(z) - 1)",
    "gelu": "z Phi(z) = z (1 + erf(z / sqrt 2)) / 2",
    "silu": "z sigmoid(z)",
    "mish": "z tanh(softplus(z))",
    "softplus": "log(1 + exp(z))",
    "softsign": "z / (1 + abs(z))",
    "hard_sigmoid": "z / 6 + 1/2, clipped to [0, 1]",
    "hard_tanh": "z, clipped to [-1, 1]",
    "sin": "sin z",
    "gaussian": "exp(-z^2)",
    "exponential": "exp(z)",
    "softmax": "exp(alpha z_j) / sum_i exp(alpha z_i)",
    "hardmax": "1 for the largest z, ties to the lowest index, else 0; the gradient passes straight through",
}

LOSSES = {
    "quadratic": "sum r^2",
    "half_quadratic": "1/2 sum r^2",
    "mse": "mean r^2",
    "mae": "mean abs(r)",
    "huber": "mean of r^2 / 2 where abs(r) <= delta, else delta (abs(r) - delta / 2)",
    "log_cosh": "mean log cosh r",
    "quantile": "mean of q (t - z) where z < t, else (1 - q) (z - t)",
    "poisson": "mean of z - t log(z + 1e-8); under exponential z - t log z, from its pre-activation",
    "binary_cross_entropy": "-sum of t log z + (1 - t) log(1 - z); logs are at least -100, as in PyTorch",
    "cross_entropy": "-sum of t log z; logs are at least -100",
    "focal": "-sum of t (1 - z)^gamma log z; under sigmoid also (1 - t) z^gamma log(1 - z)",
    "hinge": "mean max(0, 1 - t z), with t = -1 or +1",
    "squared_hinge": "mean max(0, 1 - t z)^2, with t = -1 or +1",
}

OPTIMIZERS = {
    "sgd": "v = momentum v + g; w -= lr v, with nesterov w -= lr (g + momentum v). The rate is outside v, as in "
    "PyTorch; Keras has it inside",
    "adagrad": "s += g^2; w -= lr g / (sqrt(s) + epsilon). s starts at 0 as in PyTorch; in Keras at 0.1",
    "adadelta": "s = rho s + (1 - rho) g^2; d = sqrt(u + epsilon) / sqrt(s + epsilon) g; u = rho u + (1 - rho) d^2; "
    "w -= lr d",
    "rmsprop": "s = rho s + (1 - rho) g^2; v = momentum v + g / (sqrt(s) + epsilon); w -= lr v. epsilon is outside the "
    "root as in PyTorch; in Keras inside, and its rho is 0.9",
    "adam": "m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; "
    "w -= lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon). epsilon is added after the correction, as in "
    "PyTorch; Keras adds 1e-7 before it",
    "adamw": "adam, with regularization.weight_decay 0.01 unless it is given",
    "adamax": "m as in adam; u = max(beta2 u, abs(g) + epsilon); w -= lr m / (1 - beta1^t) / u",
    "nadam": "adam with Nesterov's look ahead: mu_t = beta1 (1 - 0.96^(0.004 t) / 2) in place of beta1 in the step "
    "(Dozat 2016, PyTorch's form)",
    "radam": "adam whose step is rectified while v is uncertain: plain momentum as long as "
    "rho_t = rho - 2 t beta2^t / (1 - beta2^t) <= 5, where rho = 2 / (1 - beta2) - 1 (Liu et al. 2020)",
    "lion": "w -= lr sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g",
    "rprop": "w -= step sign(g); each weight's step, at first the initial rate, times 1.2 while g keeps its sign and "
    "0.5 when it turns, within [1e-6, 50]; a schedule scales all steps alike",
}

SCHEDULES = {
    "constant": "initial",
    "step": "initial gamma^floor(e / every)",
    "multistep": "initial gamma^(milestones passed)",
    "exponential": "initial gamma^e",
    "polynomial": "final + (initial - final) (1 - p)^power",
    "cosine": "final + (initial - final) (1 + cos(pi p)) / 2",
    "cosine_restarts": "cosine over period epochs, then again, each factor times as long as the last (SGDR)",
    "one_cycle": "half a cosine from initial up to peak at p = 0.3, another down to final (PyTorch's OneCycleLR)",
    "flat_cosine": "initial until p = 0.75, then cosine",
    "coslog": "initial (1 - cos(2 pi log2(1 + (2^cycles - 1) p))) / 2",
    "plateau": "initial times factor for each time that metric did not improve by 1e-4 of its best for more than "
    "patience epochs (PyTorch's ReduceLROnPlateau)",
    "inverse_time": "c1 / (k + c2)",
    "inverse_scaling": "initial / k^power",
}

INITIALIZERS = {
    "zeros": "0",
    "constant": "value",
    "normal": "N(0, std^2)",
    "uniform": "U(-limit, limit)",
    "truncated_normal": "N(0, std^2), drawn again where it is beyond 2 std",
    "glorot_normal": "N(0, 2 / (m + n)), not truncated",
    "glorot_uniform": "U(-b, b), b = sqrt(6 / (m + n))",
    "he_normal": "N(0, 2 / m), not truncated",
    "he_uniform": "U(-b, b), b = sqrt(6 / m)",
    "lecun_normal": "N(0, 1 / m), not truncated",
    "lecun_uniform": "U(-b, b), b = sqrt(3 / m)",
    "orthogonal": "orthonormal rows, or columns where there are more rows; a bias is a random unit vector",
}

LAYERS = {
    "dense": "activation(W x + b)",
    "residual": "x + f(x)",
    "highway": "T f(x) + (1 - T) x, f(x) = activation(W x + b), T = sigmoid(W_T x + b_T)",
    "concat": "[x, f(x)]",
    "layer_norm": "scale (x - mean) / sqrt(variance + epsilon) + shift, over each row",
    "batch_norm": "the same over each column of the batch; by running statistics outside training",
    "positional_encoding": "sin(2^k pi x) for k = 0 ... frequencies - 1, then the cosines; x itself is not included",
}

NUMERIC = {
    "none": "x",
    "standard": "(x - mean) / standard deviation",
    "minmax": "(x - min) / (max - min)",
    "robust": "(x - median) / interquartile range",
    "quantile": "the rank of x among the training values, from 0 to 1",
    "divide": "x / by",
}

MISSING = {
    "error": "an empty cell is refused",
    "mean": "the column's mean",
    "median": "the column's median",
    "constant": "value",
    "indicator": "the column's mean, and a further input that is 1 where the cell was empty",
    "drop": "the row is left out",
}

SAMPLING = {
    "shuffle": "every row once an epoch, in a new order each time",
    "sequential": "every row once an epoch, as they stand in the file",
    "with_replacement": "as many draws as there are rows, each from all of them",
}
