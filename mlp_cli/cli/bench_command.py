"""`mlp bench`: the limit of this machine's multiply-adds, and how near training comes to it."""

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import Console, count, table

GIGA, MICRO = 1e9, 1e-6


@click.command("bench", short_help="Measure how near training comes to the limit of this machine.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Measure with N threads; default: with one, and with as many as this process may use.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=3.0,
    show_default=True,
    metavar="S",
    help="Measure for about so long; every net is trained for three epochs at least.",
)
@options.as_json
@options.quiet
def command(threads, dtype, seconds, as_json, quiet):
    """Train nets of many sizes on random rows, and evaluate one, beside the limit that the processor sets.

    The limit is what fused multiply-adds reach that wait for no memory. A net's speed is that of the matrix products
    of its training, and counts whatever else a step does as lost time. Both are measured in turns; the speed is the
    median, the limit the best. A net whose steps are too small to share among threads is measured on one.

    \b
    mlp bench
    mlp bench --threads 1 --seconds 20
    mlp bench --dtype float64 --json
    """
    from mlp_cli import benchmark
    from mlp_cli.runs.provenance import available_processors

    console = Console(quiet, as_json)
    counts = [threads] if threads else sorted({1, available_processors()})
    options.prepare_kernels(console, dtype)
    console.say(f"Measuring for about {seconds:g} s …")
    found = benchmark.run(dtype, counts, seconds, benchmark.NETS, benchmark.EVALUATED)
    facts = _facts()
    console.emit(_record(facts, found))
    console.result(_report(facts, found))


def _facts():
    """What the figures depend on besides the program."""
    from mlp_cli.runs.provenance import provenance

    known = provenance()
    return {name: known[name] for name in ("versions", "processor", "operating_system", "threads_available", "date")}


def _record(facts, found):
    """The measurements, for --json."""
    return {
        **facts,
        "dtype": found.dtype,
        "rounds": found.rounds,
        "limits": [{"threads": threads, "flops_per_second": limit} for threads, limit in found.limits.items()],
        "nets": [
            {
                "net": speed.net.name,
                "task": speed.task,
                "batch_size": speed.net.batch if speed.task == "train" else None,
                "threads": speed.threads,
                "rows": speed.net.rows,
                "seconds": speed.seconds,
                "samples_per_second": speed.samples_per_second,
                "flops_per_sample": speed.flops,
                "flops_per_second": speed.flops_per_second,
                "share_of_limit": speed.share_of_limit,
            }
            for speed in found.speeds
        ],
    }


def _report(facts, found):
    """The measurements, for people."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    limits = ", ".join(f"{limit / GIGA:.1f} GFLOP/s on {_threads(threads)}" for threads, limit in found.limits.items())
    header = ["net", "task", "batch", "threads", "µs/sample", "samples/s", "GFLOP/s", "of the limit"]
    return "\n".join(
        [
            f"{facts['processor']}, {_threads(facts['threads_available'])} available",
            versions,
            f"Limit of {found.dtype} multiply-adds: {limits}",
            "",
            table([_line(speed) for speed in found.speeds], header=header, left=2),
            "",
            f"Medians of {found.rounds} rounds; GFLOP/s are those of the matrix products.",
        ]
    )


def _line(speed):
    return [
        speed.net.name,
        speed.task,
        count(speed.net.batch) if speed.task == "train" else "-",
        count(speed.threads),
        f"{1 / speed.samples_per_second / MICRO:.4g}",
        count(round(speed.samples_per_second)),
        f"{speed.flops_per_second / GIGA:.1f}",
        f"{speed.share_of_limit:.1%}",
    ]


def _threads(n):
    return f"{count(n)} thread" + ("" if n == 1 else "s")
