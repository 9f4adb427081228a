"""Arguments and options that several commands share."""

import re

import click

OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")

quiet = click.option("--quiet", is_flag=True, help="Only warnings and errors on stderr.")
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


def tell_of_merging(console, command: str):
    """What `config.load` calls with all configs, and those that are whole by themselves: says that they are one run."""

    def tell(configs: list[str], whole: list[str]) -> None:
        import shlex

        from mlp_cli.wording import listed

        if len(configs) > 1:
            console.say(f"One run of {len(configs)} configs, merged in this order: {listed(configs)}")
        if len(whole) > 1:
            files = " ".join(map(shlex.quote, whole)) if len(whole) <= 3 else f"{shlex.quote(whole[0])} ..."
            console.warn(
                f"{listed(whole)} each have data and a network of their own, and are merged into ONE run, in which the "
                f'last one wins; to {command} each of them: for config in {files}; do mlp {command} "$config"; done'
            )

    return tell


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


def tell_of_checkpoint(console, saved, remark: str) -> None:
    """Warn of a checkpoint that is not the result of a run that finished (`remark`), or that nothing has trained."""
    position = saved.meta["position"]
    if remark:
        console.warn(f"{remark}, of step {position['step']}")
    if position["step"] == 0:
        console.warn(f"{saved.path}: holds an untrained network, as it was initialised")


def thread_count(asked: int | None) -> int:
    """The threads asked for, or the processors that this process may use."""
    from mlp_cli.runs.provenance import available_processors

    return asked or available_processors()


def prepare_kernels(console, dtype):
    """Make the kernels ready; the first time on a machine, say that they are compiled."""
    from mlp_cli.kernels.prepare import prepare

    prepare(dtype, console.say, console.warn)
