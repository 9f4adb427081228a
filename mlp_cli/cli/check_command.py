"""`mlp check`: is this config, with its data, fit to train? And is the gradient of this very network right?"""

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import Console, count, table


@click.command("check", short_help="Check a config, its data and its gradients; train nothing.")
@click.argument("arguments", metavar="CONFIG... [key=value ...]", nargs=-1, required=True)
@options.as_json
@options.quiet
def command(arguments, as_json, quiet):
    """Read config and data as training would, then compare backpropagation with central differences in float64.

    \b
    mlp check configs/digits.yaml
    """
    configs, overrides = options.split_arguments(arguments)
    console = Console(quiet, as_json)

    from mlp_cli import config as config_package

    config = config_package.load(configs, overrides, options.tell_of_merging(console, "check"))

    from mlp_cli.errors import CheckFailed
    from mlp_cli.gradient_check import TOLERANCE, check_gradients
    from mlp_cli.model import Model, load_data
    from mlp_cli.starting import check, take_initial
    from mlp_cli.wording import listed

    precise = config.model_copy(update={"dtype": "float64"})
    dataset = load_data(precise)
    model = Model.new(precise, dataset)
    check(model, dataset)
    take_initial(model, console.warn)
    console.say(f"Task: {dataset.task.kind} ({dataset.task.reason})")
    for note in dataset.notes:
        console.warn(note)
    options.prepare_kernels(console, "float64")
    blocks = check_gradients(model, dataset.train)
    compared = sum(block.compared for block in blocks)
    console.emit(
        {
            "task": dataset.task.kind,
            "tolerance": TOLERANCE,
            "passed": all(block.passed for block in blocks) if compared else None,
            "compared": compared,
            "kinks": sum(block.kinks for block in blocks),
            "blocks": [
                {"name": b.name, "shape": list(b.shape), "compared": b.compared, "relative_error": b.error,
                 "kinks": b.kinks, "remark": b.remark, "passed": b.passed}
                for b in blocks
            ],
        }
    )  # fmt: skip
    console.result(_report(blocks))
    failed = [block.name for block in blocks if not block.passed]
    if failed:
        raise CheckFailed(
            f"The gradient check failed for {listed(failed)}: relative errors above {TOLERANCE:g}. "
            "This is a fault of mlp: please report it with the config"
        )
    console.result(f"Config and data are good; {_conclusion(blocks, compared, TOLERANCE)}.")


def _report(blocks):
    rows = []
    for block in blocks:
        shape = " x ".join(str(n) for n in block.shape)
        error = "-" if block.remark else f"{block.error:.1e}"
        rows.append([block.name, shape, count(block.compared), error, _verdict(block)])
    return table(rows, header=["parameter", "shape", "compared", "relative error", "verdict"])


def _conclusion(blocks, compared, tolerance):
    """What the comparison shows; nothing, where there was nothing to compare."""
    if compared:
        some = sum(block.compared > 0 for block in blocks)
        return (
            f"{count(compared)} derivatives, in {some} of {len(blocks)} parameters, agree with central differences "
            f"to {tolerance:g}"
        )
    reasons = list(dict.fromkeys(block.remark or "all derivatives compared lie on a kink" for block in blocks))
    return f"no gradient could be compared with central differences ({'; '.join(reasons)})"


def _verdict(block):
    if block.remark:
        return block.remark
    kinks = f" ({block.kinks} on a kink, not compared)" if block.kinks else ""
    return ("agrees" if block.passed else "DIFFERS") + kinks
