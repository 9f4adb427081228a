"""`mlp warmup`: compile the kernels now instead of at the first run."""

import os
import time

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import Console

DTYPES = ("float32", "float64")


@click.command("warmup", short_help="Compile the kernels now instead of at the first run.")
@click.option(
    "--dtype",
    type=click.Choice([*DTYPES, "all"]),
    default="float32",
    show_default=True,
    help="The precision whose kernels to compile; mlp check needs float64.",
)
@options.as_json
@options.quiet
def command(dtype, as_json, quiet):
    """Compile the kernels for the processor of this machine and keep them, so that no run has to wait for it.

    For container images: compile while the image is built, on the kind of processor that it will run on. For clusters:
    compile once on each kind of node, before many jobs start at once.

    The kernels are kept in the user's cache folder, or in the one that MLP_CACHE_DIR names: the same one when training,
    and writable then too. Another version of mlp, Python or numba compiles its own.

    \b
    mlp warmup --dtype all
    MLP_CACHE_DIR=/opt/mlp mlp warmup
    """
    import mlp_cli.network.machine  # noqa: F401  declares the kernels
    from mlp_cli.errors import SystemFault
    from mlp_cli.kernels.jit import CACHE_FOLDER

    if CACHE_FOLDER is None:
        raise SystemFault(f"Nothing to warm up: compiled kernels cannot be kept, since {_unwritable()}")
    console = Console(quiet, as_json)
    kernels = [_warm_up(console, each) for each in (DTYPES if dtype == "all" else (dtype,))]
    console.emit({"folder": str(CACHE_FOLDER), "kernels": kernels})
    console.result(f"Kept in {CACHE_FOLDER}")


def _warm_up(console, dtype):
    """Compile the kernels of one scalar type unless they are there; what was done, for --json."""
    from mlp_cli.errors import SystemFault
    from mlp_cli.kernels.jit import CACHE_FOLDER, is_cached, prepare

    if is_cached(dtype):
        console.result(f"{dtype}: already there")
        return {"dtype": dtype, "compiled": False, "seconds": 0.0}
    console.say(f"Compiling the {dtype} kernels for this processor …")
    began = time.monotonic()
    prepare(dtype)
    seconds = time.monotonic() - began
    if not is_cached(dtype):
        raise SystemFault(
            f"The {dtype} kernels were compiled, but could not be kept in {CACHE_FOLDER}: look for free space there, "
            "or set MLP_CACHE_DIR to another folder"
        )
    console.result(f"{dtype}: compiled in {seconds:.1f} s")
    return {"dtype": dtype, "compiled": True, "seconds": seconds}


def _unwritable():
    """Why there is no cache folder, and the remedy."""
    if chosen := os.environ.get("MLP_CACHE_DIR"):
        return f"the folder of MLP_CACHE_DIR, {chosen}, cannot be written; make it writable or name another"
    return "the user's cache folder cannot be written; make it writable or set MLP_CACHE_DIR to another"
