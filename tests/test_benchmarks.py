"""The programs in benchmarks/ measure what they say: every side trains, turns and ratios are right, absence is named.

How long anything takes is not asserted.
"""

import ctypes
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    busy,
    compare,
    figure,
    memory,
    ours,
    peers,
    processes,
    report,
    scale,
    start_up,
    targets,
    variants,
    worker,
)
from benchmarks.comparison import compare as comparison
from benchmarks.comparison import share_of_limit, take_turns
from benchmarks.worker import Work, Worker, WorkerError, Workers
from mlp_cli.benchmark import NETS, Net

ROOT = Path(__file__).parent.parent
TINY = Net((6, 9, 3), 4, 48)
NAMES = ("PyTorch", "JAX", "scikit-learn", "FANN")


def tiny_rows(net=TINY):
    """Rows with classes that a small net can learn."""
    random = np.random.default_rng(1)
    y = np.arange(net.rows, dtype=np.int32) % net.sizes[-1]
    x = random.normal(np.eye(net.sizes[0])[y] * 3, 0.5).astype(np.float32)
    return x, y


def work(net=TINY):
    return Work(net.sizes, net.batch, net.rows)


# --- contenders -------------------------------------------------------------------------------------------------


def fann_loss(peer):
    peer.fann.fann_get_MSE.restype = ctypes.c_float
    return peer.fann.fann_get_MSE(peer.net)


# the loss after an epoch, where each contender keeps it
LOSSES = {
    ours: lambda peer: peer.work.loss,
    peers.module("pytorch"): lambda peer: peer.loss(peer.model(peer.x), peer.y).item(),
    peers.module("jax"): lambda peer: float(peer.loss),
    peers.module("sklearn"): lambda peer: peer.model.loss_,
    peers.module("fann"): fann_loss,
}


@pytest.mark.parametrize("module", LOSSES, ids=lambda module: module.NAME)
def test_every_contender_trains_and_says_how_long_it_took(module):
    if module.available() is None:
        pytest.skip(f"{module.NAME} is not installed")
    batch = TINY.batch if module.takes(TINY.batch, 1) else 1
    peer = module.Peer(TINY.sizes, batch, *tiny_rows(), 1)
    assert peer.epoch() > 0
    first = LOSSES[module](peer)
    for _ in range(100):
        peer.epoch()
    assert LOSSES[module](peer) < 0.8 * first
    if hasattr(peer, "close"):
        peer.close()


def test_the_contenders_of_one_process_leave_each_other_their_numbers_of_threads():
    """Which variables and flags a process gets depends on its number of threads alone."""
    jax = peers.module("jax")
    assert "XLA_FLAGS" in jax.environment(1)
    assert "XLA_FLAGS" not in jax.environment(2)


def test_fann_trains_sample_by_sample_in_one_thread_only():
    fann = peers.module("fann")
    assert [fann.takes(1, 1), fann.takes(1, 2), fann.takes(32, 1)] == [True, False, False]


def test_ours_trains_on_the_rows_that_it_is_given():
    x, y = tiny_rows()
    peer = ours.Peer(TINY.sizes, TINY.batch, x, y, 1)
    np.testing.assert_array_equal(peer.work.x, x)
    np.testing.assert_array_equal(peer.work.classes, y)
    peer.close()


@pytest.mark.parametrize("kind", [ours.Eval, ours.Predict])
def test_an_evaluation_leaves_the_net_as_it_is(kind):
    peer = kind(TINY.sizes, TINY.batch, *tiny_rows(), 1)
    before = peer.work.trainer.model.network.parameters.copy()
    assert peer.epoch() > 0
    np.testing.assert_array_equal(peer.work.trainer.model.network.parameters, before)
    peer.close()


# --- workers ----------------------------------------------------------------------------------------------------


def test_a_worker_measures_and_lives_on_after_an_error():
    with Workers() as workers:
        alone = workers.get(ours, 1)
        assert workers.get(ours, 1) is alone
        task = alone.net(work())
        assert 0 < task() < 1
        with pytest.raises(WorkerError, match=r"^mlp: TypeError: .*'colour'"):
            alone.net(work(), colour="red")
        assert task() > 0
        assert alone.limit()() < task()
        workers.drop()
        with pytest.raises(WorkerError, match="IndexError"):
            task()
    assert alone.process.returncode == 0


def test_a_worker_that_dies_is_an_error_and_not_a_hang():
    with Workers() as workers:
        dying = workers.get(ours, 1)
        task = dying.net(work())
        dying.process.kill()
        dying.process.wait()
        with pytest.raises(WorkerError, match=r"^mlp: its process ended"):
            task()


def test_every_worker_gets_its_environment_and_its_cores():
    with Workers() as workers:
        narrow = workers.get(ours, 1, {"MLP_TEST_VARIABLE": "here"})
        if not Path("/proc").exists():
            pytest.skip("there is no /proc to look into")
        narrow.limit()
        status = Path(f"/proc/{narrow.process.pid}/status").read_text()
        allowed = next(line.split()[1] for line in status.splitlines() if line.startswith("Cpus_allowed_list"))
        assert allowed == str(workers.cores[0])
        environment = Path(f"/proc/{narrow.process.pid}/environ").read_bytes().split(b"\0")
        assert {b"MLP_TEST_VARIABLE=here", b"OMP_NUM_THREADS=1"} <= set(environment)


def test_interpreted_libraries_get_short_epochs():
    class Asked(Worker):
        def __init__(self, module):
            self.module = module

        def _make(self, request):
            return request["net"]["rows"]

    wide = Work((8, 16, 2), 32, 320_000)
    assert Asked(ours).net(wide) == 320_000
    assert Asked(peers.module("sklearn")).net(wide) == 400 * 32
    assert Asked(peers.module("sklearn")).net(work()) == TINY.rows


def test_all_contenders_get_the_same_rows():
    x, y = worker.random_rows(work())
    again, _ = worker.random_rows(work())
    np.testing.assert_array_equal(x, again)
    assert (x.shape, x.dtype, y.dtype) == ((48, 6), np.float32, np.int32)
    assert set(y) == {0, 1, 2}


def test_a_measurement_is_the_mean_of_some_epochs():
    seconds = iter([1.0, 2.0, 6.0])

    def epoch():
        try:
            return next(seconds)
        except StopIteration:
            pytest.fail("measured on after the time was over")

    assert worker.measure(epoch, 10, 0.0) == 0.1
    assert worker.measure(iter([4.0]).__next__, 2, 0.0) == 2.0


# --- arithmetic -------------------------------------------------------------------------------------------------


def test_contenders_take_turns_after_a_round_that_does_not_count():
    calls = []

    def contender(name):
        calls.append(name)
        return len(calls)

    times = take_turns({name: partial(contender, name) for name in "abc"}, 2)
    assert "".join(calls) == "abcabcabc"
    assert times == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}


def test_the_speed_is_the_median_of_the_rounds():
    found = comparison("net", "plain", "JAX", 1, [1.0, 2.0, 4.0], [3.0, 10.0, 8.0], least=3.0)
    assert (found.ours, found.theirs, found.speed) == (2.0, 8.0, 3.0)
    assert found.quartiles == (2.5, 4.0)
    assert found.holds is True


def test_what_must_be_reached_holds_or_is_missed_or_is_not_demanded():
    verdicts = [comparison("", "", "", 1, [2.0], [3.0], least=least).holds for least in (1.5, 1.51, None)]
    assert verdicts == [True, False, None]


def test_a_share_of_the_limit_counts_the_operations_of_a_sample():
    found = share_of_limit("net", "plain", "limit", 1, [4e-6, 4e-6], [1e-9, 2e-9], 1000, 0.5)
    assert found.speed == pytest.approx(0.375)
    assert found.theirs == pytest.approx(1.5e-6)
    assert (found.share, found.holds) == (True, False)


@pytest.mark.parametrize(
    ("value", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (1e-6, "1 µs"), (2.8912e-5, "28.9 µs"), (3.4e-8, "34 ns")]
)
def test_times_have_the_unit_that_suits_them(value, text):
    assert report.seconds(value) == text


def test_speeds_are_factors_or_shares():
    assert [report.speed(7.914, False), report.speed(0.9341, True), report.speed(None, False)] == [
        "7.91 ×",
        "93.4 %",
        "",
    ]


# --- what must be reached ---------------------------------------------------------------------------------------


def test_every_target_is_of_a_net_that_is_measured():
    measured = {targets.key(net) for net in NETS}
    tables = [targets.EVERYDAY, targets.LIMIT, targets.TWO_THREADS, *targets.PEERS.values(), [variants.NET]]
    assert [key for table in tables for key in table if key not in measured] == []


def test_targets_of_libraries():
    small, large = Net((8, 16, 2), 1, 1), Net((1000, 1000, 1000, 16), 100, 100)
    assert [targets.against_peer(name, small, 1) for name in NAMES] == [1.0, 6.0, 1.0, 3.5]
    assert [targets.against_peer(name, small, 2) for name in NAMES] == [1.0, None, 1.0, None]
    assert [targets.against_peer(name, large, 1) for name in NAMES] == [None] * 4
    assert [targets.against_limit(large, threads) for threads in (1, 2)] == [0.92, None]


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def only_tiny(monkeypatch):
    """The commands measure a tiny net, for a moment."""
    for module in (compare, busy):
        monkeypatch.setattr(module, "NETS", (TINY,))
    monkeypatch.setattr(variants, "NET", targets.key(TINY))
    monkeypatch.setattr(busy, "SECONDS", 0.01)
    monkeypatch.setattr(worker.Task.begin, "__defaults__", (0.001,))


def run(monkeypatch, command, *arguments):
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments)])
    return command.main()


def test_compare_measures_what_is_there_and_names_what_is_absent(monkeypatch, only_tiny, tmp_path, capsys):
    present = peers.module("sklearn")
    for name in peers.PEERS:
        version = "1.2.3" if peers.module(name) is present else None
        monkeypatch.setattr(peers.module(name), "available", lambda version=version: version)
    # AVX2 code would be compiled first
    monkeypatch.setattr(variants, "avx2", variants.evaluation)
    path = tmp_path / "speed.json"
    assert run(monkeypatch, compare, "--nets", TINY.name, "--threads", 1, "--rounds", 2, "--json", path) == 0
    printed = capsys.readouterr().out
    assert "scikit-learn 1.2.3, " in printed
    assert [name for name in ("PyTorch", "JAX", "FANN") if f"{name} absent" not in printed] == []
    stored = json.loads(path.read_text())
    assert stored["versions"]["JAX"] is None
    assert (stored["rounds"], stored["processor"]) == (2, report.provenance()["processor"])
    found = {(each["variant"], each["against"]): each for each in stored["comparisons"]}
    plain = [against for variant, against in found if variant == variants.PLAIN]
    assert plain == ["scikit-learn", "FMA limit"]
    assert {variant for variant, against in found if against == variants.PLAIN} == set(variants.VARIANTS)
    assert {("eval", "FMA limit"), ("predict", "FMA limit"), ("float64", "float64 limit")} <= set(found)
    assert found["adam", variants.PLAIN]["least"] == 0.92
    demanded = [each["holds"] for each in stored["comparisons"] if each["least"] is not None]
    assert f"{sum(demanded)} of {len(demanded)} hold" in printed


def test_two_threads_are_compared_with_one_and_with_libraries_that_have_two(only_tiny):
    chosen = [name for name in ("sklearn", "fann") if peers.module(name).available()]
    with Workers() as workers:
        (found,) = variants.two_threads(workers, TINY, 1)
        beside = list(compare.against_peers(workers, TINY, 2, chosen, 1))
    assert (found.threads, found.against, found.least) == (2, "1 thread", targets.NOT_SLOWER)
    assert [(each.threads, each.against) for each in beside] == [(2, "scikit-learn"), (2, "FMA limit")]


def test_compare_says_when_there_are_too_few_cores(monkeypatch, only_tiny, capsys):
    code = run(monkeypatch, compare, "--nets", TINY.name, "--threads", 4096, "--peers", "", "--rounds", 1)
    assert code == 0
    assert "4096 threads are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nets", "8-16-2@33"], "'8-16-2@33' is not among"),
        (["--peers", "torch"], "'torch' is not among pytorch, jax, sklearn, fann"),
        (["--threads", "0"], "expected a whole number from 1 up; got 0"),
        (["--rounds", "0"], "expected a whole number from 1 up; got 0"),
    ],
)
def test_mistakes_on_the_command_line(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, compare, *arguments)
    assert message in capsys.readouterr().err


def test_a_figure_without_matplotlib_is_refused_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(figure, "available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, compare, "--figure", "speed.svg")
    assert "--figure needs matplotlib" in capsys.readouterr().err


def test_nets_are_chosen_by_name_and_batch():
    chosen = compare.chosen_nets("8-16-2,784-128-10@32")
    assert [(net.name, net.batch) for net in chosen] == [("8-16-2", 1), ("8-16-2", 32), ("784-128-10", 32)]


# --- the figure -------------------------------------------------------------------------------------------------


def stored_record():
    found = [
        comparison("8-16-2, batch 1", variants.PLAIN, name, threads, [1e-7], [speed * 1e-7])
        for threads in (1, 2)
        for name, speed in (("JAX", 7.9), ("PyTorch", 2090.0))
    ]
    return json.loads(json.dumps(report.end(report.begin(1, {"JAX": "0.1", "PyTorch": None}), found)))


def test_the_figure_shows_every_library_and_is_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    stored, again, path = tmp_path / "speed.json", tmp_path / "again.svg", tmp_path / "speed.svg"
    report.write(stored_record(), stored)
    for target in (path, again):
        assert figure.draw(report.read(stored), target)
    drawn = path.read_text()
    assert [text for text in ("8-16-2, batch 1", "JAX, 2 threads", "PyTorch", "JAX 0.1") if text not in drawn] == []
    assert drawn == again.read_text()


def test_a_busy_machine_is_said_to_be_busy(monkeypatch, capsys):
    monkeypatch.setattr(report.os, "getloadavg", lambda: (3.21, 0.0, 0.0))
    record = report.begin(1)
    assert record["load"] == 3.21
    assert "Warning: the load of this machine is 3.2;" in capsys.readouterr().err
    monkeypatch.setattr(report.os, "getloadavg", lambda: (0.1, 9.0, 9.0))
    report.begin(1)
    assert capsys.readouterr().err == ""


def test_nothing_is_drawn_where_no_library_was_measured(tmp_path):
    record = stored_record() | {"comparisons": []}
    assert not figure.draw(record, tmp_path / "speed.svg")
    assert not (tmp_path / "speed.svg").exists()


def test_the_figure_in_the_readme_shows_what_is_stored():
    stored = report.read(ROOT / "docs/speed.json")
    drawn = (ROOT / "docs/speed.svg").read_text()
    assert "docs/speed.svg" in (ROOT / "README.md").read_text()
    measured = [each for each in stored["comparisons"] if each["against"] in NAMES]
    assert measured
    shown = {each["title"] for each in measured} | {each["against"] for each in measured} | {stored["date"][:10]}
    assert [text for text in shown if text not in drawn] == []


# --- the smaller commands ---------------------------------------------------------------------------------------


def test_whole_processes_train_and_leave_a_run(tmp_path):
    (found,) = start_up.whole_processes(tmp_path, 1)
    assert (found.against, found.least) == ("scikit-learn", 1.0)
    assert (tmp_path / "run-1" / "summary.json").exists()
    assert (tmp_path / "model.pickle").exists()


def test_ready_kernels_are_measured_in_processes_of_their_own():
    found = list(start_up.ready(1))
    assert [each.variant for each in found] == ["float32, warm", "float64, warm"]
    assert all(each.theirs == start_up.READY for each in found)


def test_scale_compares_with_the_fewest_rows(monkeypatch):
    monkeypatch.setattr(scale, "ROWS", (40, 80, 160, 320))
    monkeypatch.setattr(scale, "SECONDS", 0.0)
    monkeypatch.setattr(scale, "MOST_BYTES", 4 * 160 * 6)
    found = list(scale.in_memory(TINY, 1000, 1))
    assert [(each.variant, each.title.split(", ")[2], each.against) for each in found] == [
        ("in memory, steps", "80 rows", "40 rows"),
        ("in memory, steps", "160 rows", "40 rows"),
        ("in memory, epoch", "80 rows", "40 rows"),
        ("in memory, epoch", "160 rows", "40 rows"),
    ]
    assert list(scale.in_memory(TINY, 40, 1)) == []


def test_scale_compares_mapped_inputs_with_those_in_memory():
    found = list(scale.mapped(TINY, 40, 2))
    assert [(each.title, each.variant, each.against, each.least) for each in found] == [
        ("6-9-3, batch 4, 40 rows", "mapped, steps", "in memory", 0.8),
        ("6-9-3, batch 4, 40 rows", "mapped, whole process", "in memory", None),
    ]
    steps, whole = found
    assert all(
        0 < its_steps < its_whole for its_steps, its_whole in ((steps.ours, whole.ours), (steps.theirs, whole.theirs))
    )


@pytest.mark.parametrize("memory", ["map", "load"])
def test_scale_trains_with_the_inputs_where_it_says(tmp_path, memory):
    processes.save_rows(tmp_path, TINY, TINY.rows)
    scale._remember([], processes.training(tmp_path, TINY.sizes, TINY.batch, 1), memory)
    assert f"memory: {memory}\n" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.fixture
def proc():
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc to look into")


def test_memory_measures_inputs_of_every_kind_and_holds(monkeypatch, proc, tmp_path, capsys):
    monkeypatch.setattr(memory, "NARROW", memory.WIDE // 2)
    monkeypatch.setattr(memory, "ELEMENTS", ("float64", "uint8"))
    path = tmp_path / "memory.json"
    sizes = ("--size", "0.01", "--mapped", "0.02", "--folder", tmp_path)
    assert run(monkeypatch, memory, *sizes, "--json", path) == 0
    assert "5 of 5 hold" in capsys.readouterr().out
    stored = json.loads(path.read_text())["peaks"]
    described = [(each["what"], each["element"], each["rows"], each["inputs"], each["stored"]) for each in stored]
    assert described == [
        ("in memory", "float64", 3188, 784, 3188 * 784 * 8),
        ("in memory", "uint8", 3188, 784, 3188 * 784),
        ("in memory", "float64", 6377, 392, 6377 * 392 * 8),
        ("in memory", "uint8", 6377, 392, 6377 * 392),
        ("mapped", "float32", 6377, 784, 6377 * 784 * 4),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]


def test_a_process_is_seen_with_the_memory_that_it_takes(proc):
    wait = "import mmap, time; time.sleep(0.2)"
    fill = "a = bytearray(50 << 20); b = mmap.mmap(-1, 30 << 20); b.write(bytes(1 << 20) * 30)"
    empty, _ = memory.watch([sys.executable, "-c", wait])
    full, seconds = memory.watch([sys.executable, "-c", f"import mmap; {fill}; {wait}"])
    for kind in ("peak", "own"):
        assert full[kind] - empty[kind] > 79 << 20
    assert seconds > 0.2


def test_a_training_that_fails_is_no_measurement(monkeypatch, proc, tmp_path, capsys):
    monkeypatch.setattr(memory, "CLASSES", 1)
    assert run(monkeypatch, memory, "--size", "0.01", "--folder", tmp_path) == 1
    assert "expected two classes or more" in capsys.readouterr().err


def test_what_takes_more_memory_than_is_allowed_is_missed():
    at_most = memory.Peak("mapped", "float32", 1, 1, 4, peak=100, few=1, most=100, seconds=1.0)
    more = memory.Peak("mapped", "float32", 1, 1, 4, peak=101, few=1, most=100, seconds=1.0)
    assert [memory.line(peak)[-1] for peak in (at_most, more)] == ["holds", "MISSED"]


@pytest.mark.parametrize("write", [memory.write_inputs, memory.sparse_inputs])
def test_files_for_measuring_memory_are_arrays(tmp_path, monkeypatch, write):
    monkeypatch.setattr(memory, "BLOCK_BYTES", 100)
    write(tmp_path / "x.npy", 33, 5, "float64")
    x = np.load(tmp_path / "x.npy")
    assert (x.shape, x.dtype) == ((33, 5), np.float64)
    assert bool(x.any()) == (write is memory.write_inputs)


def test_busy_measures_threads_and_pairs_and_sends_its_neighbours_home(monkeypatch, only_tiny, capsys):
    monkeypatch.setattr(busy, "PAIRS", {targets.key(TINY): 2})
    places = worker.cores()
    monkeypatch.setattr(worker, "cores", lambda: places)
    started = []
    monkeypatch.setattr(busy.subprocess, "Popen", remembering(busy.subprocess.Popen, started))
    assert run(monkeypatch, busy, "--rounds", 1) == 0
    printed = capsys.readouterr().out
    assert [how for how in ("cores busy", "cores idle", "first of two", "second of two") if how not in printed] == []
    trainings = [process for process in started if "train" in process.args]
    # a round that does not count and one that does, each of one alone and of two
    assert len(trainings) == 2 * (1 + 2)
    assert all(process.args[-2:] == ["--threads", "1"] for process in trainings)
    neighbours = [process for process in started if busy.NEIGHBOUR in process.args]
    assert len(neighbours) == len(places)
    assert all(process.returncode is not None for process in started)


def remembering(make, made):
    """A function that makes things, and keeps them in a list."""

    def remember(*arguments, **given):
        made.append(make(*arguments, **given))
        return made[-1]

    return remember


def test_processes_that_run_at_once_are_timed_each(tmp_path):
    waits = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\ntime.sleep(0.1)"
    ends = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    first, second = processes.at_once([[sys.executable, "-c", code, str(tmp_path / "end")] for code in (waits, ends)])
    assert 0 < second < first


def test_a_process_that_fails_beside_others_is_no_measurement():
    code = "import os; raise SystemExit(os.environ['MLP_TEST_VARIABLE'])"
    commands = [[sys.executable, "-c", code] for code in ("pass", code)]
    with pytest.raises(processes.subprocess.CalledProcessError) as caught:
        processes.at_once(commands, MLP_TEST_VARIABLE="lost")
    assert caught.value.stderr == "lost\n"


@pytest.mark.slow
def test_trainings_that_start_at_once_with_an_empty_cache_all_succeed(tmp_path):
    (found,) = start_up.cold_together(tmp_path)
    assert 0 < found.theirs <= found.ours
    runs = sorted(tmp_path.glob("run-*/summary.json"))
    assert len(runs) == start_up.TOGETHER
    assert len({path.parent.joinpath("checkpoints/best.safetensors").read_bytes() for path in runs}) == 1
    assert len(list(tmp_path.glob("cache/**/*.code"))) == 1
