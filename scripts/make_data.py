"""Makes every file in data/: four classics that scikit-learn carries, and small sets drawn here by rule.

    python scripts/make_data.py            # writes into data/
    python scripts/make_data.py FOLDER     # writes somewhere else, to compare

The same files come out on every machine: the points come from Python's own generator with a fixed seed, and every
number is rounded before it is written.
"""

import csv
import gzip
import io
import math
import random
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

Table = tuple[list[str], list[list]]  # column names, rows


# Classics


def digits() -> Table:
    """1797 handwritten digits of 8x8 pixels, each pixel 0..16, row by row from the top left."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    names = [f"p{k:02}" for k in range(64)]
    rows = [[*map(int, x), int(y)] for x, y in zip(bundle.data, bundle.target, strict=True)]
    return [*names, "digit"], rows


def iris() -> Table:
    """150 irises of three species: sepals and petals in centimetres."""
    from sklearn.datasets import load_iris

    bundle = load_iris()
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
    return names, _with_class(bundle)


def breast_cancer() -> Table:
    """569 tumours, each described by 30 measurements of the nuclei of its cells."""
    from sklearn.datasets import load_breast_cancer

    bundle = load_breast_cancer()
    names = [name.replace(" ", "_") for name in bundle.feature_names]
    return [*names, "diagnosis"], _with_class(bundle)


def diabetes() -> Table:
    """442 patients: ten measurements, and how far the disease had gone a year later."""
    from sklearn.datasets import load_diabetes

    bundle = load_diabetes(scaled=False)
    rows = [[*_plain(x), int(y)] for x, y in zip(bundle.data, bundle.target, strict=True)]
    return [*bundle.feature_names, "progression"], rows


def _with_class(bundle) -> list[list]:
    """Each row's features followed by the name of its class."""
    names = [str(name) for name in bundle.target_names]
    return [[*_plain(x), names[y]] for x, y in zip(bundle.data, bundle.target, strict=True)]


def _plain(values: Iterable[float]) -> list[str]:
    """Numbers as people write them: 5.1, 101, 0.006399."""
    return [f"{float(value):.10g}" for value in values]


# Logic


def gate(function) -> Table:
    """The truth table of a function of two bits."""
    return ["x1", "x2", "y"], [[a, b, int(function(a, b))] for a, b in product((0, 1), repeat=2)]


def negation() -> Table:
    """The truth table of NOT."""
    return ["x", "y"], [[0, 1], [1, 0]]


# Points in the plane

ARROW = [(0, 1), (0.8, 0), (0.3, 0), (0.3, -0.9), (-0.3, -0.9), (-0.3, 0), (-0.8, 0)]


def polygon() -> Table:
    """500 points of a square; y says whether a point lies inside the arrow. None lies nearer than 0.02 to its edge."""
    draw = random.Random(1)
    rows = []
    while len(rows) < 500:
        x, y = round(draw.uniform(-1, 1), 2), round(draw.uniform(-1, 1.1), 2)
        if min(_distance(x, y, *edge) for edge in _edges(ARROW)) > 0.02:
            rows.append([x, y, int(_inside(x, y, ARROW))])
    return ["x", "y", "inside"], rows


def _edges(corners):
    """Each corner with the next one, round the polygon."""
    return zip(corners, corners[1:] + corners[:1], strict=True)


def _inside(x, y, corners) -> bool:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in _edges(corners):
        if (y0 > y) != (y1 > y):
            crossings += x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return crossings % 2 == 1


def _distance(x, y, start, end) -> float:
    """Distance of a point from a line segment."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)
    along = min(1, max(0, along))
    return math.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def separable() -> Table:
    """200 points either side of the line x1 + x2 = 1, at least 0.1 away from it."""
    draw = random.Random(2)
    rows = []
    while len(rows) < 200:
        x1, x2 = round(draw.gauss(0.5, 0.5), 2), round(draw.gauss(0.5, 0.5), 2)
        side = (x1 + x2 - 1) / math.sqrt(2)
        if abs(side) >= 0.1:
            rows.append([x1, x2, int(side > 0)])
    return ["x1", "x2", "y"], rows


def spirals() -> Table:
    """Two arms of 200 points that wind round each other once and a half, with a little noise."""
    draw = random.Random(3)
    rows = []
    for i, arm in product(range(200), (0, 1)):
        radius = 0.1 + 0.9 * i / 199
        angle = 3 * math.pi * i / 199 + math.pi * arm
        x = radius * math.cos(angle) + draw.gauss(0, 0.01)
        y = radius * math.sin(angle) + draw.gauss(0, 0.01)
        rows.append([round(x, 3), round(y, 3), arm])
    return ["x", "y", "arm"], rows


# Functions


def dose() -> Table:
    """The share of patients (0 to 1) who respond to a dose, measured with an error of some 0.03."""
    draw = random.Random(4)
    rows = []
    for i in range(120):
        amount = round(i * 10 / 119, 2)
        share = 1 / (1 + math.exp(-1.5 * (amount - 4))) + draw.gauss(0, 0.03)
        rows.append([amount, round(min(1, max(0, share)), 3)])
    return ["dose", "response"], rows


def sine() -> Table:
    """y = sin 2x + x/4 on [-3, 3], with noise of standard deviation 0.1."""
    draw = random.Random(5)
    rows = []
    for i in range(300):
        x = round(-3 + 6 * i / 299, 3)
        rows.append([x, round(math.sin(2 * x) + x / 4 + draw.gauss(0, 0.1), 3)])
    return ["x", "y"], rows


def image(size: int = 48) -> Table:
    """A grey picture, one row a pixel: coordinates in [-1, 1] and intensity in [0, 1]. Rings, a chessboard, a ramp."""
    rows = []
    for i, j in product(range(size), repeat=2):
        x, y = (2 * j + 1) / size - 1, 1 - (2 * i + 1) / size
        rows.append([round(x, 4), round(y, 4), round(_grey(x, y), 2)])
    return ["x", "y", "intensity"], rows


def _grey(x: float, y: float) -> float:
    """Intensity at a point of the picture."""
    radius = math.hypot(x, y)
    if radius < 0.55:
        return 0.5 + 0.5 * math.cos(24 * radius)
    if x * y > 0:
        return 0.2 + 0.6 * ((math.floor(4 * x) + math.floor(4 * y)) % 2)
    return 0.5 + 0.25 * (x - y)


TABLES = {
    "digits.csv": digits,
    "iris.csv": iris,
    "breast_cancer.csv.gz": breast_cancer,
    "diabetes.csv": diabetes,
    "and.csv": lambda: gate(lambda a, b: a and b),
    "or.csv": lambda: gate(lambda a, b: a or b),
    "xor.csv": lambda: gate(lambda a, b: a != b),
    "not.csv": negation,
    "polygon.csv": polygon,
    "separable.csv": separable,
    "spirals.csv": spirals,
    "dose.csv": dose,
    "sine.csv": sine,
    "image.csv": image,
}


def text(name: str) -> str:
    """The contents of one file of data/, before any compression."""
    header, rows = TABLES[name]()
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([header, *rows])
    return lines.getvalue()


def main() -> None:
    """Write every file into the folder named on the command line, or into data/."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        content = text(name).encode()
        # No time stamp in the gzip header: the same contents give the same bytes.
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        print(f"{folder / name}: {len(content.splitlines()) - 1} rows")


if __name__ == "__main__":
    main()
