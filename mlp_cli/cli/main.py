"""`main` runs a command and turns every error into one sentence and an exit code. Nothing heavy is imported here."""

import importlib
import os
import sys

import click

import mlp_cli
from mlp_cli.cli.console import complain
from mlp_cli.errors import MlpError, SystemFault
from mlp_cli.interrupts import bus_errors
from mlp_cli.wording import quoted

# Verb, and its module and function under mlp_cli.cli.
COMMANDS = {
    "train": "Train a network.",
    "eval": "Measure a trained network on a split or a file.",
    "predict": "Predict for raw rows.",
    "inspect": "Show a network: layers, preprocessing, provenance.",
    "check": "Check a config, its data and its gradients; train nothing.",
    "schema": "Print the JSON Schema of the config.",
    "bench": "Measure how near training comes to the limit of this machine.",
    "warmup": "Compile the kernels now instead of at the first run.",
}

PIPE_CLOSED = 141
INTERRUPTED = 130
DEBUG = "MLP_DEBUG"
# What the dynamic linker says of a library for which there is no memory.
NO_ROOM = ("failed to map segment", "cannot map zero-fill pages", "annot allocate", "cannot create shared object")


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, not to list it."""

    def list_commands(self, context):
        """The verbs, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, context, name):
        """A verb's command, from its module."""
        if name not in COMMANDS:
            return None
        from mlp_cli import memory

        memory.heed_limits()
        module = importlib.import_module(f"mlp_cli.cli.{name}_command")
        return module.command

    def format_commands(self, context, formatter):
        """The list of verbs, from the table above: nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, context, arguments):
        """The command that is meant, or an error with the nearest verb."""
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError:
            from difflib import get_close_matches

            name = arguments[0]
            near = get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(
                f"expected a command ({', '.join(COMMANDS)}); got {quoted(name)}.{hint}", context
            ) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mlp_cli.__version__, prog_name="mlp")
def mlp():
    """Train multilayer perceptrons from YAML configs.

    \b
    mlp train configs/digits.yaml            train, and see where the result lies
    mlp eval runs/digits-001                 measure it on its test rows
    mlp predict runs/digits-001 rows.csv     predict for raw rows
    """


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    _fill_closed_streams()
    if hasattr(sys.stdout, "reconfigure"):
        # a class name that the locale cannot spell is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except BrokenPipeError:
        _discard_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        complain("Interrupted.")
        return INTERRUPTED


def _run(arguments: list[str] | None) -> int:
    try:
        # not mlp.main, which makes 1 of a closed pipe and an interruption of an EOFError
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        with mlp.make_context("mlp", arguments) as context, bus_errors(complain, _map_error):
            code = mlp.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        complain(error.format_message())
        return 2
    except click.ClickException as error:
        complain(f"Error: {error.format_message()}")
        if isinstance(error, click.UsageError) and error.ctx is not None:
            complain(f"See `{error.ctx.command_path} --help`.")
        return 2
    except MlpError as error:
        complain(str(error))
        return error.exit_code
    except MemoryError:
        complain(
            "Out of memory: the data and the network do not fit. Try a smaller training.batch_size, fewer units, "
            "dtype: float32, or data.memory: map"
        )
        return SystemFault.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"System error: {error}. Check free space and permissions")
        return SystemFault.exit_code
    except Exception as error:
        if isinstance(error, ImportError) and any(words in str(error) for words in NO_ROOM):
            complain(
                "Out of memory: a library cannot be loaded. Free memory, or raise the limit of the process (ulimit -v)"
            )
            return SystemFault.exit_code
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            complain(
                "The system has no room for another thread. Use --threads 1, end other programs, or raise the limit "
                "of processes (ulimit -u)"
            )
            return SystemFault.exit_code
        if os.environ.get(DEBUG):
            raise
        complain(
            f"Internal error ({type(error).__name__}: {error}). This is a fault of mlp: please report it; "
            f"{DEBUG}=1 shows where it happened."
        )
        return 1


def _map_error() -> MlpError:
    from mlp_cli.data.arrayfile import map_error

    return map_error()


def _fill_closed_streams() -> None:
    """Open what was closed before we began (`mlp ... >&-`): stdout as a pipe that nobody reads, the others as nothing.

    Python leaves None in their place, and the next file to be opened would get their number.
    """
    if sys.stdin is None:
        _move(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        reader, writer = os.pipe()
        _move(writer, 1)
        if reader != 1:
            os.close(reader)
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        _move(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _move(descriptor: int, number: int) -> None:
    """Give an open file this number."""
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)


def _discard_stdout() -> None:
    """Point stdout at nothing, so that Python does not fail again when it flushes at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
