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
    where it need not be writable. Another version of mlp, Python or numba compiles its own.

    \b
    mlp warmup --dtype all
    MLP_CACHE_DIR=/opt/mlp mlp warmup
    """
    from mlp_cli.kernels.cache import Cache

    console = Console(quiet, as_json)
    caches = {each: Cache(each) for each in (DTYPES if dtype == "all" else (dtype,))}
    kernels = [_warm_up(console, each, cache) for each, cache in caches.items()]
    folder = next(iter(caches.values())).folder
    console.emit({"folder": str(folder), "kernels": kernels})
    console.result(f"Kept in {folder}")


def _warm_up(console, dtype, cache):
    """Compile the kernels of one scalar type unless they are there; what was done, for --json."""
    from mlp_cli.errors import SystemFault
    from mlp_cli.kernels.prepare import prepare
    from mlp_cli.kernels.trust import Untrusted

    if cache.is_there():
        console.result(f"{dtype}: already there")
        return {"dtype": dtype, "compiled": False, "seconds": 0.0}
    try:
        cache.try_to_write()
    except OSError as error:
        raise SystemFault(f"Nothing to warm up: compiled kernels cannot be kept, since {_unwritable(error)}") from None
    except Untrusted as reason:
        raise SystemFault(f"Nothing to warm up: {reason}; {reason.remedy}") from None
    began = time.monotonic()
    prepare(dtype, console.say)
    seconds = time.monotonic() - began
    if not cache.is_there():
        raise SystemFault(
            f"The {dtype} kernels were compiled, but could not be kept in {cache.folder}: look for free space there, "
            "or set MLP_CACHE_DIR to another folder"
        )
    console.result(f"{dtype}: compiled in {seconds:.1f} s")
    return {"dtype": dtype, "compiled": True, "seconds": seconds}


def _unwritable(error):
    """Why nothing can be kept, and the remedy."""
    if chosen := os.environ.get("MLP_CACHE_DIR"):
        place, remedy = f"the folder of MLP_CACHE_DIR, {chosen},", "name another"
    else:
        place, remedy = "the user's cache folder", "set MLP_CACHE_DIR to another"
    return f"{place} cannot be written ({error.strerror}); make it writable or {remedy}"
