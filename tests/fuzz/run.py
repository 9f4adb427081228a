"""Coverage-guided fuzzing of the readers: `python tests/fuzz/run.py`, with `pip install -e '.[fuzz]'`.

Every target in turn, or those that are named, for --seconds each. What it finds is written to the current directory as
crash-*, timeout-* or oom-*: fix it, and keep the file in tests/fuzz/cases/<target>/. More options of libFuzzer may
follow.
"""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]
WORDS = {
    "config": """data: network: layers: units: activation: loss: optimizer: learning_rate: schedule: training: name:
        kind: path: target: split: residual softmax relu adam null .inf .nan 1e308 &a *a << !!str --- [ ] { } " |""",
    "table": """, ; \\x09 \\x0a \\x0d\\x0a " "" # NA NaN inf 1e999 1e39 -0 \\xef\\xbb\\xbf \\xff\\xfe \\x00 1,5 a,b""",
    "arrays": """\\x93NUMPY\\x01\\x00 'descr' 'fortran_order' 'shape' True False <f8 <f4 |u1 <U3 |b1 |O >i8 (1,) (2,3)
        \\x1f\\x8b PK\\x03\\x04 PK\\x01\\x02 PK\\x05\\x06 x.npy y.npy \\x00\\x00\\x08\\x01 \\x00\\x00\\x08\\x03""",
    "checkpoint": "__metadata__ mlp sha256 format_version F32 F64 dtype shape data_offsets { } [ ] : ,",
    "description": "",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(WORDS)}; all by default")
    parser.add_argument("--seconds", type=int, default=300, help="for each target")
    parser.add_argument("--corpus", type=Path, help="folder for the inputs that reach something new")
    given, more = parser.parse_known_args()
    if unknown := set(given.targets) - set(WORDS):
        parser.error(f"expected targets of {', '.join(WORDS)}; got {', '.join(sorted(unknown))}")
    if len(given.targets) == 1:
        fuzz(given.targets[0], given, more)
    # a fuzzer ends its process, so each has one of its own
    codes = [subprocess.run([sys.executable, __file__, target, *_options(given, target), *more]).returncode
             for target in given.targets or WORDS]  # fmt: skip
    return int(any(codes))


def _options(given, target: str) -> list[str]:
    """The options of one target's process."""
    corpus = [] if given.corpus is None else [f"--corpus={given.corpus / target}"]
    return [f"--seconds={given.seconds}", *corpus]


def fuzz(target: str, given, more: list[str]) -> None:
    """Let the fuzzer loose on a target until its time is over or it finds something, which ends the process."""
    # kernels are compiled, and the compiler cannot read instrumented functions
    kernels = [f"mlp_cli.kernels.{path.stem}" for path in (ROOT / "mlp_cli" / "kernels").glob("*.py")]
    with atheris.instrument_imports(include=["mlp_cli"], exclude=kernels):
        import targets

        for module in ("config", "data", "evaluation", "prediction"):
            importlib.import_module(f"mlp_cli.{module}")
    from seeds import seeds

    corpus = given.corpus or targets.FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(target)):
        (corpus / f"seed-{number:03d}").write_bytes(content)
    options = ["-timeout=20", "-rss_limit_mb=4096", "-max_len=20000", f"-max_total_time={given.seconds}"]
    if entries := WORDS[target].replace('"', '\\"').split():
        words = targets.FOLDER / "words"
        words.write_text("".join(f'"{word}"\n' for word in entries))
        options.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], str(corpus), *options, *more], targets.ALL[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
