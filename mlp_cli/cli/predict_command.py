"""`mlp predict`: predictions for raw rows, as CSV."""

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import Console, harmless

BLOCK_LINES = 10_000


@click.command("predict", short_help="Predict for raw rows.")
@click.argument("model", type=click.Path())
@click.argument("data", metavar="DATA")
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to write; default: standard output.")
@click.option("--keep", multiple=True, metavar="COL", help="Copy this column of DATA to the output; may be repeated.")
@options.threads
@options.quiet
def command(model, data, output, keep, threads, quiet):
    """Predictions of MODEL (a run directory or a checkpoint) for the rows of DATA; - is standard input.

    DATA needs the columns that the network was trained on, in any order; the target may be absent.

    \b
    mlp predict runs/digits-001 new.csv -o predictions.csv
    cat new.csv | mlp predict runs/digits-001 - --keep id
    """
    import csv
    import sys
    from pathlib import Path

    from mlp_cli.model import Model
    from mlp_cli.network.footprint import require_to_measure
    from mlp_cli.prediction import predict
    from mlp_cli.runs import checkpoint, files
    from mlp_cli.runs.ending import chosen_model

    console = Console(quiet)
    path, remark = chosen_model(Path(model))
    saved = checkpoint.read(path)
    network = Model.from_checkpoint(saved)
    options.tell_of_checkpoint(console, saved, remark)
    source = options.data_source((data,), "DATA")
    batch = network.preprocessing.transform(source, need_target=False, keep=keep)
    for note in batch.notes:
        console.warn(note)
    options.prepare_kernels(console, network.config.dtype)
    require_to_measure(network.network, len(batch.x))
    header, lines = predict(network.machine(options.thread_count(threads)), network, batch)
    if output == "-":
        # not through Console: rows are data, with whatever characters they hold, in UTF-8 as in a file
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")
        # but a terminal would obey the escapes in them
        clean = harmless if sys.stdout.isatty() else str
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(clean, header))
        writer.writerows(map(clean, line) for line in lines)
        sys.stdout.flush()
        return
    files.write_output(Path(output), *_encoded(csv, header, lines))
    console.say(f"{batch.rows:,} rows written to {output}")


def _encoded(csv, header, lines):
    """The CSV text as bytes, a block of lines at a time."""
    import io
    import itertools

    lines = itertools.chain([header], lines)
    while block := list(itertools.islice(lines, BLOCK_LINES)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(block)
        yield text.getvalue().encode()
