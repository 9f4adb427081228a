"""Links, pipes, devices and folders in the place of each file of a run and of an output: a sentence, no hang, no harm.

Every place meets every attack and every command; two places at once meet two of them, --soak N times.
"""

import contextlib
import itertools
import os
import random
import shutil
import signal
import stat
from pathlib import Path

import pytest
from cli import as_user, blobs, classifier, good, mlp, open_to_all
from faults import Door

from mlp_cli.runs import files

ANOTHER_USER = 54321
IS_ROOT = os.geteuid() == 0
SECONDS = 30
LAST, FIRST = "checkpoints/step-0000000015.safetensors", "checkpoints/step-0000000010.safetensors"
PLACES = [
    "config.yaml", "metrics.jsonl", "summary.json", "lock", "checkpoints", "checkpoints/best.safetensors", LAST, FIRST,
    "replacement", "replacement-finished",
]  # fmt: skip
WRITTEN_IN_PLACE = ("metrics.jsonl", "lock")
COMMANDS = ("resume", "force", "eval", "predict", "inspect")


class Victims:
    """A file and a folder that nobody may change, and where they lie."""

    def __init__(self, folder: Path, run: Path):
        self.root = folder / "victims"
        self.file, self.folder = self.root / "file", self.root / "folder"
        self.nothing = self.root / "nothing"
        shutil.copytree(run / "checkpoints", self.folder)
        self.file.write_bytes(b'{"epoch": 1}\n' + b"precious\n" * 100)
        self.file.chmod(0o640)
        self.before = self.state()

    def state(self):
        return {
            str(path): (stat.S_IMODE(path.stat().st_mode), path.read_bytes() if path.is_file() else None)
            for path in sorted(self.root.rglob("*"))
        }


def a_folder(path, victims):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


# What is put in a place.
ATTACKS = {
    "link": lambda path, victims: path.symlink_to(victims.file),
    "link to a folder": lambda path, victims: path.symlink_to(victims.folder),
    "dangling link": lambda path, victims: path.symlink_to(victims.nothing),
    "loop": lambda path, victims: path.symlink_to(path.name),
    "hard link": lambda path, victims: os.link(victims.file, path),
    "pipe": lambda path, victims: os.mkfifo(path),
    "folder": a_folder,
    "link to a device": lambda path, victims: path.symlink_to(os.devnull),
}
if IS_ROOT:
    ATTACKS["device"] = lambda path, victims: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Config, data and directory of a finished run."""
    folder = tmp_path_factory.mktemp("placés and spaces")
    data = blobs(folder / "d.csv")
    config = classifier(
        folder / "c.yaml", data, training={"epochs": 3, "batch_size": 8, "checkpoint": {"keep": 2, "every_epochs": 1}}
    )
    good("train", config, "--out", folder / "run")
    assert (folder / "run" / FIRST).exists()
    for command in COMMANDS:  # so that all is loaded that they need
        good(*arguments(command, config, data, shutil.copytree(folder / "run", folder / command), folder / "o.csv"))
    return config, data, folder / "run"


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(files, "_call", Door())


@contextlib.contextmanager
def no_hang():
    """A command that waits for something is ended, and is a failure."""

    def fail(number, frame):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def arguments(command, config, data, run, output):
    return {
        "resume": ("train", config, "training.epochs=4", "--out", run, "--resume", "--threads", 1),
        "force": ("train", config, "training.epochs=1", "--out", run, "--force", "--threads", 1),
        "eval": ("eval", run, "--threads", 1),
        "predict": ("predict", run, data, "-o", output, "--threads", 1),
        "inspect": ("inspect", run),
    }[command]


def assert_one_sentence(done, case):
    assert "Traceback" not in done.err, (case, done.err)
    assert "Internal error" not in done.err, (case, done.err)
    if done.code:
        assert ": " in done.err, (case, done.err)


def expected(place, attack, command):
    """The exit code."""
    trains, makes_folder = command in ("resume", "force"), attack == "folder"
    if place in ("replacement", "replacement-finished"):
        if not trains:
            return 0
        if makes_folder:
            # without a run in it: force needs the name, and so does resume if it is to go on there
            return 2 if (command, place) != ("resume", "replacement-finished") else 0
        return 5
    if place == "checkpoints":
        if makes_folder:
            return 0 if trains else 6
        return 5 if trains else 6
    if place.startswith("checkpoints/"):
        if command == "force":
            return 0 if not makes_folder else 5
        if command == "resume":
            return 0 if not makes_folder else None
        return 6 if place.endswith("best.safetensors") else 0
    if trains:
        return 5 if attack != "hard link" or place in WRITTEN_IN_PLACE else 0
    return 6 if (place, command) == ("summary.json", "inspect") and attack != "hard link" else 0


def attacked(trained, folder, command, attacks):
    """What a command makes of a copy of the run in which things were put into places; the victims are as they were."""
    config, data, whole = trained
    shutil.rmtree(folder, ignore_errors=True)
    run = shutil.copytree(whole, folder / "run")
    victims = Victims(folder, run)
    for place, attack in attacks.items():
        path = run / place
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        ATTACKS[attack](path, victims)
    with no_hang():
        done = mlp(*arguments(command, config, data, run, folder / "o.csv"))
    assert_one_sentence(done, (attacks, command))
    assert victims.state() == victims.before, (attacks, command)
    for place, attack in attacks.items():
        if attack == "folder":
            assert (run / place / "notes.txt").read_text() == "mine"
    return done


@pytest.mark.parametrize("place", PLACES)
def test_each_file_of_a_run(trained, tmp_path, place):
    for attack, command in itertools.product(ATTACKS, COMMANDS):
        done = attacked(trained, tmp_path / "here", command, {place: attack})
        code = expected(place, attack, command)
        assert done.code in ((code,) if code is not None else (0, 5, 6)), (place, attack, command, done.err)


def test_two_files_of_a_run_at_once(trained, tmp_path, soak):
    chance = random.Random(soak)
    places = [place for place in PLACES if place != "checkpoints"]
    for _ in range(soak or 30):
        attacks = {place: chance.choice([*ATTACKS]) for place in chance.sample(places, 2)}
        command = chance.choice(COMMANDS)
        done = attacked(trained, tmp_path / "here", command, attacks)
        assert done.code in (0, 2, 5, 6), (attacks, command, done.err)


@pytest.mark.parametrize("place", ["o.csv", "o.csv.tmp", "."])
def test_an_output(trained, tmp_path, place, monkeypatch):
    _, data, run = trained
    monkeypatch.setattr(files, "READER_SECONDS", 0.05)
    for attack, make in ATTACKS.items():
        case = (place, attack)
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        (tmp_path / "here").mkdir()
        victims = Victims(tmp_path / "here", run)
        folder = tmp_path / "here" / "out"
        if place == ".":
            make(folder, victims)
        else:
            folder.mkdir()
            make(folder / place, victims)
        with no_hang():
            done = mlp("predict", run, data, "-o", folder / "o.csv")
        assert_one_sentence(done, case)
        if place == "o.csv.tmp":
            assert done.code == 0, case
            assert os.path.lexists(folder / place)
        elif attack in ("link", "dangling link") and place == "o.csv":
            # the user's own link: the output goes where it leads
            target = victims.file if attack == "link" else victims.nothing
            assert (done.code, target.read_text().partition(",")[0]) == (0, "prediction"), case
            assert (folder / place).is_symlink()
            continue
        elif place == "." and attack == "link to a folder":
            assert done.code == 0, case
            (victims.folder / "o.csv").unlink()
        elif place == ".":
            assert done.code == (0 if attack == "folder" else 5), (case, done.err)
        else:
            assert done.code == (0 if attack in ("hard link", "device", "link to a device") else 5), (case, done.err)
            if "device" in attack:
                assert stat.S_ISCHR((folder / place).stat().st_mode)
        assert victims.state() == victims.before, case


@pytest.mark.parametrize("mode", [0o000, 0o444])
@pytest.mark.parametrize("place", ["config.yaml", "metrics.jsonl", "summary.json", "lock", LAST, "checkpoints", "."])
def test_files_that_may_not_be_read_or_written(trained, tmp_path, place, mode):
    """As another user than root: files of another owner, and files without permissions."""
    config, data, whole = trained
    for command in COMMANDS:
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        run = shutil.copytree(whole, tmp_path / "here" / "run")
        for source in (config, data):
            shutil.copy(source, tmp_path / "here")
        path, here = run / place, tmp_path / "here"
        copied = classifier(here / "c.yaml", here / "d.csv", training={"epochs": 3, "batch_size": 8})
        if IS_ROOT:
            for each in (here, *here.rglob("*")):
                os.chown(each, ANOTHER_USER, ANOTHER_USER)
            os.chown(path, 0, 0)
            open_to_all(here)
        path.chmod(mode)
        asked = arguments(command, copied, here / "d.csv", run, here / "o.csv")
        try:
            with no_hang():
                done = as_user(ANOTHER_USER, lambda asked=asked: mlp(*asked)) if IS_ROOT else mlp(*asked)
        finally:
            with contextlib.suppress(FileNotFoundError):  # a newer one has taken its place
                path.chmod(0o755)
        assert_one_sentence(done, (place, oct(mode), command))
        assert done.code in (0, 2, 3, 5, 6), (place, command, done.err)
