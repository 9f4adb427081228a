"""Draws a record of `benchmarks.compare`: `python -m benchmarks.figure docs/speed.json docs/speed.svg`.

The same record gives the same bytes (with the same matplotlib): no date, no random identifiers.
"""

import sys
from importlib.util import find_spec

from benchmarks import peers, report

# One colour and one marker for each library, told apart without colour as well.
MARKS = {
    "PyTorch": ("#c8502d", "o"),
    "JAX": ("#2d6fb7", "s"),
    "scikit-learn": ("#d49a1f", "^"),
    "FANN": ("#4b8b4b", "D"),
}
SETTINGS = {
    "svg.hashsalt": "mlp",
    "svg.fonttype": "none",  # text stays text: small, searchable, and drawn in the reader's font
    "font.family": "sans-serif",
    "font.size": 10,
}
NO_METADATA = {"Date": None, "Creator": None}


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(record: dict, path: str) -> bool:
    """Each library's time a sample in multiples of ours: a row for each net, on a logarithmic axis.

    False where the record compares with no library: nothing is drawn then.
    """
    names = [peers.module(name).NAME for name in peers.PEERS]
    found = [each for each in record["comparisons"] if each["against"] in names]
    if not found:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    nets = list(dict.fromkeys(each["title"] for each in found))
    with matplotlib.rc_context(SETTINGS):
        picture, axes = pyplot.subplots(figsize=(8, 1.6 + 0.36 * len(nets)), layout="constrained")
        for name in names:
            for threads, face in ((1, None), (2, "white")):
                points = [each for each in found if (each["against"], each["threads"]) == (name, threads)]
                _points(axes, nets, points, name, threads, face)
        _label(axes, nets, record)
        picture.savefig(path, metadata=NO_METADATA if str(path).endswith(".svg") else None)
        pyplot.close(picture)
    return True


def _points(axes, nets: list[str], points: list[dict], name: str, threads: int, face: str | None) -> None:
    """A library's points with one number of threads: two threads are hollow and a little lower."""
    if not points:
        return
    colour, marker = MARKS[name]
    height = [nets.index(each["title"]) + (0.2 if threads == 2 else 0.0) for each in points]
    version = name if threads == 1 else f"{name}, 2 threads"
    axes.plot([each["speed"] for each in points], height, marker, color=colour, markerfacecolor=face or colour,
              markersize=6, linestyle="none", label=version, zorder=3)  # fmt: skip


def _label(axes, nets: list[str], record: dict) -> None:
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(range(len(nets)), nets)
    axes.set_ylim(len(nets) - 0.5, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Time to train on a sample, in multiples of the time mlp takes", loc="left", fontsize=11)
    versions = record["versions"]
    shown = ", ".join(f"{name} {versions[name]}" for name in ("mlp", *MARKS) if versions.get(name))
    state = " (busy with other work)" if record["load"] > report.BUSY else ""
    axes.set_xlabel(f"{record['processor']}{state}, {record['date'][:10]}\n{shown}", fontsize=8, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def main() -> int:
    """Draw a stored record."""
    source, path = sys.argv[1:]
    if not draw(report.read(source), path):
        report.note(f"{source} compares with no library: there is nothing to draw")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
