"""Ours against ours: what optimizers, activations, norms, types, processors and threads cost, and how fast a forward
pass is. `python -m benchmarks.compare --peers ''` measures this and the limit alone."""

import platform
from collections.abc import Iterable, Iterator

from benchmarks import ours, report, targets
from benchmarks.comparison import Comparison, compare, share_of_limit, take_turns
from benchmarks.worker import Work, Workers
from mlp_cli.benchmark import Net, evaluation_flops, training_flops

PLAIN = "plain SGD, ReLU"
# The net whose variants are measured.
NET = ("784-512-512-10", 128)
# name: (options of the workload, least speed relative to plain SGD with ReLU)
VARIANTS = {
    "adam": ({"optimizer": "adam", "learning_rate": 1e-3}, 0.92),
    "adam, dropout 0.2": ({"optimizer": "adam", "learning_rate": 1e-3, "dropout": 0.2}, 0.90),
    "clip_norm": ({"optimizer": {"name": "sgd", "clip_norm": 1.0}}, 0.85),
    "l2": ({"regularization": {"l2": 1e-4}}, 0.97),
    "momentum": ({"optimizer": {"name": "sgd", "momentum": 0.9}}, 0.95),
    "tanh": ({"activation": "tanh"}, 0.95),
    "sigmoid": ({"activation": "sigmoid"}, 0.95),
    "gelu": ({"activation": "gelu"}, 0.92),
    "batch_norm": ({"norm": "batch_norm"}, 0.85),
    "layer_norm": ({"norm": "layer_norm"}, 0.88),
    "residual": ({"residual": True}, 0.95),
}
EVALUATION = 0.90
FLOAT64 = 0.88
AVX2_CODE = 0.85
# A processor without AVX-512, as numba is told; the name alone would keep the host's features.
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+sse4.2,+popcnt,-avx512f,-avx512dq,-avx512bw,-avx512vl,-avx512cd",
}


def run(workers: Workers, nets: Iterable[Net], threads: Iterable[int], rounds: int) -> Iterator[Comparison]:
    """Everything below, for those of these nets that it is demanded of; two threads if `threads` lists them."""
    for net in nets:
        if targets.key(net) == NET:
            for part in (learning, evaluation, float64, avx2):
                report.note(f"{report.title(net)}: {part.__doc__.split(':')[0].lower()}")
                yield from part(workers, net, rounds)
                workers.drop()
        if 2 in threads and len(workers.cores) > 1:
            report.note(f"{report.title(net)}: two threads beside one")
            yield from two_threads(workers, net, rounds)
            workers.drop()


def learning(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """Optimizers, activations and norms: each against plain SGD with ReLU on the net of equal products."""
    worker, work = workers.get(ours, 1), _work(net)
    contenders = {PLAIN: worker.net(work)}
    contenders |= {name: worker.net(work, **options) for name, (options, _) in VARIANTS.items()}
    times = take_turns(contenders, rounds)
    for name, (_, least) in VARIANTS.items():
        yield compare(report.title(net), name, PLAIN, 1, times[name], times[PLAIN], least=least, share=True)


def evaluation(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """Eval and predict: the forward pass over rows in memory, against the limit."""
    worker, flops = workers.get(ours, 1), evaluation_flops(net.sizes)
    contenders = {kind: worker.net(_work(net), kind) for kind in ("Eval", "Predict")}
    times = take_turns(contenders | {ours.LIMIT_NAME: worker.limit()}, rounds)
    for kind in contenders:
        both = times[kind], times[ours.LIMIT_NAME]
        yield share_of_limit(report.title(net), kind.lower(), ours.LIMIT_NAME, 1, *both, flops, EVALUATION)


def float64(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """Float64: against the limit of float64."""
    worker, flops = workers.get(ours, 1), training_flops(net.sizes)
    times = take_turns({"net": worker.net(_work(net), dtype="float64"), "limit": worker.limit("float64")}, rounds)
    yield share_of_limit(report.title(net), "float64", "float64 limit", 1, times["net"], times["limit"], flops, FLOAT64)


def avx2(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """AVX2 code: in a process that may use nothing wider, against the limit of such code and that of the processor.

    The two are equal where a core does a 512-bit multiply-add in two halves, and only there could both be demanded.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    narrow, wide, flops = workers.get(ours, 1, AVX2), workers.get(ours, 1), training_flops(net.sizes)
    contenders = {"net": narrow.net(_work(net)), "AVX2 limit": narrow.limit(), ours.LIMIT_NAME: wide.limit()}
    times = take_turns(contenders, rounds)
    for limit, least in (("AVX2 limit", AVX2_CODE), (ours.LIMIT_NAME, None)):
        yield share_of_limit(report.title(net), "AVX2 code", limit, 1, times["net"], times[limit], flops, least)


def two_threads(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """Two threads on two cores against one thread on one of them."""
    contenders = {count: workers.get(ours, count).net(_work(net)) for count in (1, 2)}
    times = take_turns(contenders, rounds)
    yield compare(report.title(net), PLAIN, "1 thread", 2, times[2], times[1], least=targets.with_two_threads(net))


def _work(net: Net) -> Work:
    return Work(net.sizes, net.batch, net.rows)
