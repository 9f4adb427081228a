"""`main` runs a command and turns every error into one sentence and an exit code. Nothing heavy is imported here."""

import importlib
import os
import sys

import click

import mlp_cli
from mlp_cli.cli.console import complain, discard
from mlp_cli.errors import MlpError, SystemFault, shortage
from mlp_cli.interrupts import Interrupts
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


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, not to list it."""

    def list_commands(self, context):
        """The verbs, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, context, name):
        """A verb's command, from its module."""
        if name not in COMMANDS:
            return None
        from mlp_cli import limits

        limits.heed()
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


def main(arguments: list[str] | None = None, interrupts: Interrupts | None = None) -> int:
    """Run the command line; the exit code. `interrupts` are those of the process, where they are installed."""
    interrupts = interrupts or Interrupts()
    if hasattr(sys.stdout, "reconfigure"):
        # a class name that the locale cannot spell is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments, interrupts)
    except BrokenPipeError:
        discard(sys.stdout)
        return PIPE_CLOSED
    except KeyboardInterrupt:
        complain("Interrupted.")
        return INTERRUPTED


def _run(arguments: list[str] | None, interrupts: Interrupts) -> int:
    try:
        return _invoke(arguments, interrupts)
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
    except Exception as error:
        if fault := shortage(error):
            complain(str(fault))
            return fault.exit_code
        if isinstance(error, OSError):
            # files are named by whoever opens them, but not what was open before us
            where = "" if error.filename else "standard output cannot be written, "
            complain(f"System error: {where}{error}. Check free space and permissions")
            return SystemFault.exit_code
        if os.environ.get(DEBUG):
            raise
        complain(
            f"Internal error ({type(error).__name__}: {error}). This is a fault of mlp: please report it; "
            f"{DEBUG}=1 shows where it happened."
        )
        return 1


def _invoke(arguments: list[str] | None, interrupts: Interrupts) -> int:
    """Run the command. Its result, or what went wrong, then stands, whatever signals come."""
    try:
        # not mlp.main, which makes 1 of a closed pipe and an interruption of an EOFError
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        with mlp.make_context("mlp", arguments, obj=interrupts) as context:
            code = mlp.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    finally:
        interrupts.over()
