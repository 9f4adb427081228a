"""Runs whose disk fails, or whose process dies, at each single call: only work is lost, and the bits are the same.

With --soak the walks leave out no combination; without, each visits every call once.
"""

import itertools
import os
import random
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli import Outcome, blobs, classifier, epochs, good, mlp, regressor, result, slopes, summary
from faults import ERRORS, FOR_EVER, Dead, Door, Failer, FailerAndKiller, Killer
from power import ForgetfulDisk, read, restore

from mlp_cli import config as configs
from mlp_cli import limits, memory, model
from mlp_cli.runs import checkpoint, files, provenance, replacement
from mlp_cli.runs.directory import RunDirectory, find_model


def stopping_early(folder):
    """Saves in the middle of epochs, keeps one checkpoint, and its best epoch is the first."""
    training = {
        "epochs": 9, "batch_size": 8, "early_stopping": {"patience": 2}, "checkpoint": {"every_steps": 3, "keep": 1},
    }  # fmt: skip
    return classifier(folder / "c.yaml", blobs(folder / "d.csv", rows=25), seed=5, learning_rate=0.5, training=training)


def rolling_back(folder, every=2):
    """Diverges in its fourth and last epoch, and succeeds with half the rate from the end of its second."""
    return regressor(
        folder / "rolling.yaml", slopes(folder / "d.csv", rows=32),
        network={"layers": [{}]}, optimizer="sgd",
        learning_rate={"schedule": "multistep", "initial": 3.4e5, "milestones": [3], "gamma": 1e-9},
        training={
            "epochs": 4, "batch_size": "full", "on_divergence": "rollback", "checkpoint": {"every_epochs": every},
        },
    )  # fmt: skip


def rolling_back_further(folder):
    """The same, but its newest checkpoint lies right before the divergence, and leads nowhere."""
    return rolling_back(folder, every=3)


def going_on(folder):
    """No validation rows, and a limit in the middle of an epoch."""
    return regressor(
        folder / "c.yaml", slopes(folder / "d.csv", rows=32), optimizer={"name": "sgd", "momentum": 0.9},
        training={"max_steps": 11, "batch_size": 8, "checkpoint": {"every_epochs": 1}},
    )  # fmt: skip


STEP = re.compile(r"step-(\d+)\.safetensors$")
# The calls of one atomic write.
WRITE = ("open", "write", "fsync", "close", "replace", "open the folder", "fsync", "close")

# A config; the flags of the run that meets the fault; and the overrides of a run that was there before, if there was.
SCENARIOS = {
    "early stopping": (stopping_early, (), None),
    "rollback": (rolling_back, (), None),
    "rollback from the checkpoint before": (rolling_back_further, (), None),
    "longer than a finished run": (going_on, ("--resume",), ("training.max_steps=4",)),
    "in the place of a finished run": (going_on, ("--force",), ("training.max_steps=4",)),
}


@dataclass
class Scenario:
    """A run that meets a fault: its config, what its directory holds before, and the result without the fault."""

    config: Path
    flags: tuple
    before: Path | None
    whole: Path
    calls: int
    opened: list  # the numbers of the calls that open a file or a folder, and its name
    folder: Path

    def prepare(self) -> None:
        """The directory as it is before the run."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir()
        if self.before is not None:
            shutil.copytree(self.before, self.out)

    def train(self, door: Door) -> Outcome | None:
        """Train behind this door in a fresh directory; None where the process died."""
        self.prepare()
        return self.run(door)

    def run(self, door: Door) -> Outcome | None:
        return behind(door, "train", self.config, *self.flags, "--threads", 1, "--out", self.out)

    def resume(self, door: Door | None = None) -> Outcome | None:
        """Go on, where the disk is well unless a door is given."""
        return behind(door or Door(), "train", self.config, "--threads", 1, "--out", self.out, "--resume")

    @property
    def out(self) -> Path:
        return self.folder / "disk" / "run"

    @property
    def deletes(self) -> bool:
        """Whether it is meant to delete its newest checkpoint: a rollback may, and --force does in the end."""
        return "--force" in self.flags or "rolling" in self.config.name

    @property
    def middle(self) -> range:
        """The calls of the undisturbed run between its start, which ends with config.yaml, and its last save."""
        ends = [n + len(WRITE) for n, name in self.opened if name == "config.yaml"]
        saves = [n for n, name in self.opened if name.startswith("step-")]
        return range(ends[0], saves[-1])

    def newest(self) -> int | None:
        """The step of the newest checkpoint of the run that `--resume` goes on with."""
        places = [self.out / name for name in (replacement.BEGUN, replacement.FINISHED)]
        place = next((path for path in places if path.exists()), self.out)
        return max((step for step, _ in RunDirectory(place).step_checkpoints()), default=None)

    def assert_whole(self) -> None:
        assert result(self.out) == result(self.whole)
        assert not [path for path in self.out.rglob("*") if files.final_name(path.name)]
        assert {path.name for path in self.out.iterdir()} == {path.name for path in self.whole.iterdir()}

    def assert_system_fault(self, done: Outcome, number: int) -> None:
        """One sentence with path and reason, and exit 5."""
        assert done.code == 5, done.err
        sentence = done.err.splitlines()[-1]
        assert sentence.startswith(str(self.out.parent))
        assert files.reason(OSError(number, os.strerror(number))) in sentence
        assert "Traceback" not in done.err

    def assert_it_goes_on(self) -> None:
        """Resumption takes the newest checkpoint that is there, misses nothing, and arrives at the same end."""
        newest = self.newest()
        done = self.resume()
        assert done.code == 0, done.err
        if newest is not None:
            assert f"Resuming at step {newest} from " in done.err
        assert "skipped" not in done.err
        assert "missing" not in done.err
        self.assert_whole()


def behind(door: Door, *arguments) -> Outcome | None:
    """A command whose every change of the disk goes through this door; None where the process died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_call", door)
        try:
            return mlp(*arguments)
        except Dead:
            return None


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    """`scenario(name)`; its undisturbed run is trained once. What takes time and has no part in it is left out."""
    load, data, made = model.load_data, {}, {}
    dump, texts = configs.dump, {}

    def load_once(config):
        if config.data.path not in data:
            data[config.data.path] = load(config)
        return data[config.data.path]

    def dump_once(config):
        key = repr(config.resolved())
        if key not in texts:
            texts[key] = dump(config)
        return texts[key]

    def get(name):
        if name in made:
            return made[name]
        config_of, flags, overrides = SCENARIOS[name]
        folder = tmp_path_factory.mktemp("scenario")
        config = config_of(folder)
        before = None
        if overrides is not None:
            before = folder / "before"
            good("train", config, *overrides, "--out", before)
        found = Scenario(config, flags, before, folder / "whole", 0, [], folder)
        door = Door()
        done = found.train(door)
        assert done.code == 0, done.err
        found.out.rename(found.whole)
        found.calls, found.opened = door.calls, door.opened
        made[name] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "load_data", load_once)
        patch.setattr(configs, "dump", dump_once)
        patch.setattr(provenance, "git_state", lambda: None)
        patch.setattr(limits, "heed", lambda: None)
        patch.setattr(memory, "available", lambda: sys.maxsize)
        yield get


def test_the_scenarios_are_what_they_are_called(scenario):
    found = summary(scenario("early stopping").whole)
    assert found["best_epoch"] < found["epochs"] < 9
    for name, step in (("rollback", 2), ("rollback from the checkpoint before", 0)):
        done = scenario(name).train(Door())
        assert f"; going back to step {step} with the learning rate times 0.5" in done.err
        assert [record["epoch"] for record in epochs(scenario(name).whole)] == [1, 2, 3, 4]
    assert [record["step"] for record in epochs(scenario("longer than a finished run").whole)] == [3, 6, 9, 11]
    assert [record["step"] for record in epochs(scenario("longer than a finished run").before)] == [3, 4]


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_call(scenario, name):
    found = scenario(name)
    newest = None
    for n in itertools.count(1):
        done = found.train(Killer(n))
        if done is not None:
            break
        # what is saved stays saved, but for what a rollback or --force is meant to delete
        if not found.deletes:
            assert (found.newest() or 0) >= (newest or 0)
            newest = found.newest()
        found.assert_it_goes_on()
    assert done.code == 0
    assert n == found.calls + 1 > 60


def test_a_run_is_there_whenever_the_one_that_replaces_it_dies(scenario):
    """At every call either the old model is in the directory or the new one; and no failure makes an end of it."""
    found = scenario("in the place of a finished run")
    models = [checkpoint.read(find_model(path)).sha256 for path in (found.before, found.whole)]
    seen = []
    for door, step in ((Killer, 1), (lambda n: Failer(n, ERRORS[n % len(ERRORS)], FOR_EVER), 7)):
        for n in range(1, found.calls + 1, step):
            found.train(door(n))
            sha256 = checkpoint.read(find_model(found.out)).sha256
            seen.append(models.index(sha256))
            if seen[-1] == 0 and not (found.out / replacement.FINISHED).exists():
                assert result(found.out) == result(found.before)
    half = seen[: found.calls]
    assert half == sorted(half)
    assert 0 < sum(half) < found.calls / 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failure_of_any_call(scenario, name):
    """A call that fails once ends no healthy run: only before the first save, or at the last one, is it exit 5."""
    found = scenario(name)
    middle = found.middle
    assert len(middle) > 20
    for n in itertools.count(1):
        number = ERRORS[n % len(ERRORS)]
        door = Failer(n, number)
        done = found.train(door)
        if door.calls < n:
            break
        if n in middle:
            assert done.code == 0, (n, done.err)
        if done.code == 0:
            found.assert_whole()
        else:
            found.assert_system_fault(done, number)
            found.assert_it_goes_on()
    assert done.code == 0
    assert n == found.calls + 1


@pytest.mark.parametrize("length", [8, FOR_EVER], ids=["for a while", "for ever"])
@pytest.mark.parametrize("name", ["early stopping", "rollback", "longer than a finished run"])
def test_a_disk_that_fails_from_any_call_on(scenario, name, length, soak):
    found = scenario(name)
    survived = 0
    for n in range(1, found.calls + 1, 1 if soak else 5):
        number = ERRORS[n % len(ERRORS)]
        done = found.train(Failer(n, number, length))
        if done.code == 0:
            survived += n in found.middle
            found.assert_whole()
        else:
            found.assert_system_fault(done, number)
            found.assert_it_goes_on()
    # an outage that is over before the end costs the run nothing; one that is not always shows
    assert (survived > 0) == (length < FOR_EVER)


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_faults(scenario, name, soak):
    """A failure and then a death; or a death, and another or a failure while the run is resumed."""
    found = scenario(name)
    chance = random.Random(name)
    for _ in range(soak or 12):
        n, m = chance.randint(1, found.calls), chance.randint(1, found.calls)
        number = chance.choice(ERRORS)
        if chance.random() < 0.5:
            done = found.train(FailerAndKiller(n, number, n + m))
        else:
            found.train(Killer(n))
            done = found.resume(chance.choice((Killer(m), Failer(m, number))))
        if done is not None and done.code:
            found.assert_system_fault(done, number)
        found.assert_it_goes_on()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_power_goes_after_any_call(scenario, name, soak):
    """Whatever a power cut leaves, the run goes on to the same bits, and what was once saved is there."""
    found = scenario(name)
    seen = set()
    for seed in range(max(1, soak // 100)):
        found.prepare()
        disk = ForgetfulDisk(found.out.parent, seed)
        assert found.run(disk).code == 0
        assert disk.now() == read(found.out.parent)
        newest = 0
        for state, safe in disk.remains:
            if not found.deletes:
                newest = max(newest, steps_among(safe))
                assert steps_among(state) >= newest
            if (key := frozenset(state.items())) not in seen:
                seen.add(key)
                restore(state, found.out.parent)
                found.assert_it_goes_on()
        # in the end nothing is at the mercy of the power
        assert safe == {place for place, content in disk.now().items() if content is not None}
    assert len(seen) > found.calls / 2


def test_killed_while_a_numbered_directory_is_made(scenario, tmp_path, monkeypatch):
    """Without --out, too, resumption finds the run: no second directory is begun."""
    found = scenario("early stopping")
    command = ("train", found.config, "--threads", 1, "--resume")
    for n in range(1, 30):
        (tmp_path / str(n)).mkdir()
        monkeypatch.chdir(tmp_path / str(n))
        assert behind(Killer(n), *command) is None
        assert behind(Door(), *command).code == 0
        (run,) = Path("runs").iterdir()
        assert result(run) == result(found.whole)


def steps_among(places) -> int:
    """The newest step of which there is a checkpoint."""
    return max((int(found[1]) for place in places if (found := STEP.search(place))), default=0)
