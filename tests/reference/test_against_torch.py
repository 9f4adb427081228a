"""The twin against PyTorch, wherever that happens to be installed; it is no dependency of the tests."""

import numpy as np
import pytest

from . import Trainer, activations, encode, losses, optimizers, random_weights

torch = pytest.importorskip("torch")
F = torch.nn.functional

N, K = 6, 4
RNG = np.random.default_rng(5)
Z = 3 * RNG.normal(size=(N, K))
T = RNG.normal(size=(N, K))
CLASSES = RNG.integers(K, size=N)
BITS = RNG.integers(2, size=(N, K)).astype(float)
COUNTS = RNG.integers(4, size=(N, K)).astype(float)


def tensor(a, grad=False):
    return torch.tensor(np.array(a, dtype=np.float64), requires_grad=grad)


def close(ours, theirs, rtol=1e-12, atol=1e-13):
    np.testing.assert_allclose(ours, theirs.detach().numpy() if torch.is_tensor(theirs) else theirs, rtol, atol)


# --------------------------------------------------------------------------------- activations and their kinks

ACTIVATIONS = [
    ("linear", lambda z: z * 1.0),
    ("sigmoid", torch.sigmoid),
    ("tanh", torch.tanh),
    ("relu", F.relu),
    ("leaky_relu", F.leaky_relu),
    ({"name": "leaky_relu", "alpha": 0.3}, lambda z: F.leaky_relu(z, 0.3)),
    ("elu", F.elu),
    ({"name": "elu", "alpha": 0.5}, lambda z: F.elu(z, 0.5)),
    ("selu", F.selu),
    ("gelu", F.gelu),
    ("silu", F.silu),
    ("mish", F.mish),
    ("softplus", F.softplus),
    ("softsign", F.softsign),
    ("hard_sigmoid", F.hardsigmoid),
    ("hard_tanh", F.hardtanh),
    ("sin", torch.sin),
    ("gaussian", lambda z: torch.exp(-z * z)),
    ("exponential", torch.exp),
    ("softmax", lambda z: F.softmax(z, 1)),
    ({"name": "softmax", "alpha": 2.5}, lambda z: F.softmax(2.5 * z, 1)),
]


@pytest.mark.parametrize(("activation", "theirs"), ACTIVATIONS, ids=str)
def test_activation(activation, theirs):
    kinks = np.array([[0.0, 1.0, -1.0, 3.0], [-3.0, 0.0, 0.0, 1e-9], [-18.0, 19.0, 6.0, -6.0]])
    z, dy = np.concatenate([Z, kinks]), RNG.normal(size=(N + 3, K))
    x = tensor(z, grad=True)
    y = theirs(x)
    y.backward(tensor(dy))
    close(activations.value(activation, z), y)
    # PyTorch keeps hardsigmoid's 1/6 as a float32 even for float64 tensors.
    close(activations.pullback(activation, z, dy), x.grad, rtol=1e-7 if activation == "hard_sigmoid" else 1e-12)


# ------------------------------------------------------------------------------------------------------ losses

ONE_HOT = encode(CLASSES, K)
LOSSES = [
    ("linear", "mse", T, F.mse_loss),
    ("linear", "mae", T, F.l1_loss),
    ("linear", "huber", T, F.huber_loss),
    ("linear", {"name": "huber", "delta": 0.3}, T, lambda z, t: F.huber_loss(z, t, delta=0.3)),
    ("exponential", "poisson", COUNTS, F.poisson_nll_loss),
    (
        "softplus",
        "poisson",
        COUNTS,
        lambda z, t: F.poisson_nll_loss(F.softplus(z), t, log_input=False, eps=0.0),
    ),
    (
        "sigmoid",
        "binary_cross_entropy",
        BITS,
        lambda z, t: K * F.binary_cross_entropy_with_logits(z, t),
    ),
    (
        "gaussian",
        "binary_cross_entropy",
        BITS,
        lambda z, t: K * F.binary_cross_entropy(torch.exp(-z * z), t),
    ),
    ("softmax", "cross_entropy", ONE_HOT, F.cross_entropy),
    (
        "softmax",
        {"name": "cross_entropy", "label_smoothing": 0.2},
        ONE_HOT,
        lambda z, t: F.cross_entropy(z, t, label_smoothing=0.2),
    ),
    (
        "softmax",
        {"name": "cross_entropy", "reduction": "sum"},
        ONE_HOT,
        lambda z, t: F.cross_entropy(z, tensor(CLASSES).long(), reduction="sum"),
    ),
    ("linear", "half_quadratic", T, lambda z, t: F.mse_loss(z, t, reduction="sum") / 2 / N),
]


@pytest.mark.parametrize(("activation", "loss", "t", "theirs"), LOSSES, ids=lambda v: v if isinstance(v, str) else "")
def test_loss(activation, loss, t, theirs):
    z = np.clip(Z, -2, 2)
    x = tensor(z, grad=True)
    total = theirs(x, tensor(t))
    total.backward()
    cost, dz = losses.of_preactivations(loss, activation, z, t)
    factors = losses.sample_factors(N, reduction=activations.named(loss)[1].get("reduction", "mean"))
    close((cost * factors).sum(), total)
    close(dz * factors[:, None], x.grad)


def test_loss_at_a_hit_has_slope_zero():
    x = tensor([[1.0, 2.0]], grad=True)
    F.l1_loss(x, tensor([[1.0, 5.0]])).backward()
    close(losses.of_outputs("mae", [[1.0, 2.0]], [[1.0, 5.0]])[1], x.grad)


# -------------------------------------------------------------------------------------------------- optimizers

optim = torch.optim
OPTIMIZERS = [
    ("sgd", optim.SGD, {}),
    ({"name": "sgd", "momentum": 0.9}, optim.SGD, {"momentum": 0.9}),
    ({"name": "sgd", "momentum": 0.9, "nesterov": True}, optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ("adagrad", optim.Adagrad, {}),
    ("adadelta", optim.Adadelta, {}),
    ("rmsprop", optim.RMSprop, {}),
    ({"name": "rmsprop", "momentum": 0.8, "rho": 0.9}, optim.RMSprop, {"momentum": 0.8, "alpha": 0.9}),
    ("adam", optim.Adam, {}),
    ("adamw", optim.AdamW, {}),
    ({"name": "adamw", "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}, optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-3}),
    ("adamax", optim.Adamax, {}),
    ("nadam", optim.NAdam, {}),
    ("radam", optim.RAdam, {}),
    ("rprop", optim.Rprop, {}),
]
# PyTorch has no Lion, which rests on the steps worked by hand.


@pytest.fixture
def _float64_state():
    """NAdam keeps its product of the mu in the default dtype; in float32 that alone costs 6e-9."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_float64_state")
@pytest.mark.parametrize(("ours", "theirs", "options"), OPTIMIZERS, ids=lambda v: str(v).replace("torch.optim.", ""))
@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_twenty_steps(ours, theirs, options, l2):
    """Noisy gradients of a quadratic, so that signs turn; l2 is what PyTorch calls weight_decay, except in AdamW."""
    rng = np.random.default_rng(1)
    w = {"a.weight": rng.normal(size=(3, 5)), "b.weight": np.zeros((1, 2))}
    x = {name: tensor(value, grad=True) for name, value in w.items()}
    regularization = {}
    if l2:
        regularization = {"weight_decay": l2} if theirs is optim.AdamW else {"l2": l2}
        options = {**options, "weight_decay": l2}
    if theirs is optim.Rprop:
        options.pop("weight_decay", None)
        regularization = {}
    rule, their_rule = optimizers.Optimizer(ours, regularization), theirs(x.values(), lr=0.05, **options)
    for step in range(20):
        lr = 0.05 / (1 + 0.1 * step)
        noise = {name: rng.normal(size=value.shape) for name, value in w.items()}
        for group in their_rule.param_groups:
            group["lr"] = lr
        for name in w:
            x[name].grad = x[name].detach() + tensor(noise[name])
        their_rule.step()
        w = rule.step(w, {name: w[name] + noise[name] for name in w}, lr)
    for name in w:
        close(w[name], x[name], rtol=1e-11)


@pytest.mark.parametrize("length", [0.5, 100.0])
def test_clipping(length):
    g = {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=4)}
    x = {name: torch.zeros(value.shape, dtype=torch.float64, requires_grad=True) for name, value in g.items()}
    for name in g:
        x[name].grad = tensor(g[name])
    torch.nn.utils.clip_grad_value_(x.values(), 0.7)
    torch.nn.utils.clip_grad_norm_(x.values(), length)
    for name, value in optimizers.clipped(g, clip_value=0.7, clip_norm=length).items():
        close(value, x[name].grad)


# ---------------------------------------------------------------------------------------------- whole networks


class Highway(torch.nn.Linear):
    def __init__(self, d):
        super().__init__(d, d)
        self.gate = torch.nn.Linear(d, d)

    def forward(self, x):
        t = torch.sigmoid(self.gate(x))
        return t * F.relu(super().forward(x)) + (1 - t) * x


class Block(torch.nn.Module):
    def __init__(self, concat, *inner):
        super().__init__()
        self.concat, self.layers = concat, torch.nn.ModuleList(inner)

    def forward(self, x):
        y = x
        for layer in self.layers:
            y = layer(y)
        return torch.cat([x, y], 1) if self.concat else x + y


class Tanh(torch.nn.Linear):
    def forward(self, x):
        return torch.tanh(super().forward(x))


def test_a_net_of_every_layer_kind_learns_as_in_torch():
    specs = [
        {"kind": "dense", "units": 4, "activation": "tanh"},
        {"kind": "residual", "layers": [{"kind": "batch_norm"}, {"units": 4, "activation": "tanh"}]},
        {"kind": "highway", "activation": "relu"},
        {"kind": "concat", "layers": [{"kind": "layer_norm"}, {"units": 2, "activation": "tanh"}]},
        {"kind": "dense", "units": 3, "activation": "softmax"},
    ]
    net = torch.nn.Module()
    net.layers = torch.nn.Sequential(
        Tanh(5, 4),
        Block(False, torch.nn.BatchNorm1d(4), Tanh(4, 4)),
        Highway(4),
        Block(True, torch.nn.LayerNorm(4), Tanh(4, 2)),
        torch.nn.Linear(6, 3),
    ).double()
    weights = random_weights(specs, 5, seed=3)
    tensors = {name: tensor(value) for name, value in weights.items()}
    tensors["layers.1.layers.0.num_batches_tracked"] = torch.tensor(0)
    net.load_state_dict(tensors)
    trainer = Trainer(specs, "cross_entropy", {"name": "adam", "clip_norm": 0.3}, None, weights)
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, classes, w = rng.normal(size=(8, 5)), rng.integers(3, size=8), rng.uniform(0.5, 2, size=8)
        adam.zero_grad()
        each = F.cross_entropy(net.layers(tensor(x)), torch.tensor(classes), reduction="none")
        total = (each * tensor(w)).mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
        adam.step()
        close(trainer.step(x, encode(classes, 3), w, 0.01), total, rtol=1e-9)
    for name, value in {**trainer.parameters(), **trainer.statistics()}.items():
        close(value, net.state_dict()[name], rtol=1e-8, atol=1e-10)
    net.eval()
    close(trainer.forward(x), F.softmax(net.layers(tensor(x)), 1), rtol=1e-8)
