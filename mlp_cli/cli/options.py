"""Arguments and options that several commands share."""

import re

import click

OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")

quiet = click.option("--quiet", is_flag=True, help="Only errors on stderr.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
threads = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Threads at most; default: the processors this process may use.",
)


def split_arguments(arguments: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(configs, overrides): an argument is an override iff it looks like key=value."""
    overrides = [argument for argument in arguments if OVERRIDE.match(argument)]
    configs = [argument for argument in arguments if not OVERRIDE.match(argument)]
    if not configs:
        raise click.UsageError("expected at least one config file, as in `mlp train configs/digits.yaml`")
    return configs, overrides


def data_source(paths: tuple[str, ...], what: str):
    """DATA of the command line as the readers take it: a path, a pair of paths, or standard input."""
    import sys

    if len(paths) > 2:
        raise click.UsageError(f"expected one data file, or two for x and y; got {len(paths)}: {' '.join(paths)}")
    if len(paths) == 2:
        return tuple(paths)
    if paths[0] == "-":
        return sys.stdin.buffer
    return paths[0]


def thread_count(asked: int | None) -> int:
    """The threads asked for, or the processors that this process may use."""
    from mlp_cli.runs.provenance import available_processors

    return asked or available_processors()


def prepare_kernels(console, dtype):
    """Make the kernels ready; the first time on a machine, say that they are compiled."""
    from mlp_cli.kernels.prepare import prepare

    prepare(dtype, console.say, console.warn)
