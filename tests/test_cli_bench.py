"""`mlp bench`: what it prints, for people and for programs."""

import re

import pytest
from cli import good

from mlp_cli import benchmark
from mlp_cli.benchmark import Net
from mlp_cli.runs import provenance

SMALL = (Net((6, 10, 3), 8, 400), Net((6, 10, 3), 400, 400))


@pytest.fixture
def small(monkeypatch):
    """Nets that take no time."""
    monkeypatch.setattr(benchmark, "NETS", SMALL)
    monkeypatch.setattr(benchmark, "EVALUATED", SMALL[:1])


def test_a_table_for_people(small):
    done = good("bench", "--threads", "1", "--seconds", "0.01")
    assert done.err.endswith("Measuring for about 0.01 s …\n")
    head, rows, foot = done.out.split("\n\n")
    processor, versions, limit = head.splitlines()
    assert processor.startswith(f"{provenance.processor_name()}, ")
    assert re.fullmatch(r"mlp \S+, python \S+, numpy \S+, numba \S+, llvmlite \S+", versions)
    assert re.fullmatch(r"Limit of float32 multiply-adds: \d+\.\d GFLOP/s on 1 thread", limit)
    title, *lines = [re.split(r"\s{2,}", line.strip()) for line in rows.splitlines()]
    assert title == ["net", "task", "batch", "threads", "µs/sample", "samples/s", "GFLOP/s", "of the limit"]
    assert [line[:4] for line in lines] == [
        ["6-10-3", "train", "8", "1"],
        ["6-10-3", "train", "400", "1"],
        ["6-10-3", "evaluate", "-", "1"],
    ]
    for line in lines:
        microseconds, samples, share = float(line[4]), float(line[5].replace(",", "")), line[7]
        assert microseconds * samples == pytest.approx(1e6, rel=1e-2)
        assert re.fullmatch(r"\d+\.\d%", share)
    assert re.match(r"Medians of \d+ rounds", foot)


def test_quiet_leaves_the_result(small):
    done = good("bench", "--threads", "1", "--seconds", "0.01", "--quiet")
    assert done.err == ""
    assert "6-10-3" in done.out


def test_json_holds_the_same_and_all_digits(small):
    found = good("bench", "--threads", "1", "--seconds", "0.01", "--json").json
    assert found["dtype"] == "float32"
    assert found["processor"] == provenance.processor_name()
    assert found["threads_available"] == provenance.available_processors()
    assert set(found["versions"]) == {"mlp", "python", "numpy", "numba", "llvmlite"}
    assert found["rounds"] >= benchmark.LEAST_ROUNDS
    [limit] = found["limits"]
    assert limit["threads"] == 1
    assert [(net["net"], net["task"], net["batch_size"]) for net in found["nets"]] == [
        ("6-10-3", "train", 8),
        ("6-10-3", "train", 400),
        ("6-10-3", "evaluate", None),
    ]
    for net in found["nets"]:
        assert net["threads"] == 1
        assert net["flops_per_sample"] == (6 * 90 - 120 if net["task"] == "train" else 180)
        assert net["samples_per_second"] == net["rows"] / net["seconds"]
        assert net["flops_per_second"] == net["flops_per_sample"] * net["samples_per_second"]
        assert net["share_of_limit"] == net["flops_per_second"] / limit["flops_per_second"]


def test_one_thread_and_all_unless_told_otherwise(small, monkeypatch):
    monkeypatch.setattr(provenance, "available_processors", lambda: 3)
    found = good("bench", "--seconds", "0.01", "--json").json
    assert [limit["threads"] for limit in found["limits"]] == [1, 3]
    found = good("bench", "--seconds", "0.01", "--threads", "2", "--json").json
    assert [limit["threads"] for limit in found["limits"]] == [1, 2]  # these nets are trained on one


def test_float64_has_a_limit_of_its_own(small):
    found = good("bench", "--threads", "1", "--seconds", "0.01", "--dtype", "float64", "--json").json
    assert found["dtype"] == "float64"
    assert all(0 < net["share_of_limit"] < 1.5 for net in found["nets"])


def test_every_net_of_the_table_is_measured():
    found = good("bench", "--threads", "1", "--seconds", "0.01", "--json").json
    nets = [(net["net"], net["batch_size"]) for net in found["nets"] if net["task"] == "train"]
    assert nets == [(net.name, net.batch) for net in benchmark.NETS]
    assert [net["net"] for net in found["nets"] if net["task"] == "evaluate"] == ["784-512-512-10"]
    assert all(0 < net["share_of_limit"] < 1.5 for net in found["nets"])
