"""A short form of the campaign. ``campaign.py`` runs any number of tries; docs/reliability.md has past runs."""

import random

import pytest
from campaign import campaign, made
from children import in_child
from disks import run as run_disks
from flips import flip, readers
from jobs import clear, copy_of, jobs, result
from kills import run as run_kills
from strangers import archives

SEED = 7


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return made(tmp_path_factory.mktemp("campaign") / "benchmark", small=True)


@pytest.mark.parametrize(("run", "number"), [(run_kills, 6), (run_disks, 4), (archives, 8)], ids=["kills", "disks", "archives"])
def test_a_few_tries(bench, tmp_path_factory, run, number):
    tries = run(bench, tmp_path_factory.mktemp(run.__module__) / "work", number, SEED)
    assert tries.wrong == []
    assert tries.answers.total() >= number


def test_configs(tmp_path):
    [tries] = campaign({"configs": 20}, SEED, tmp_path)
    assert tries.wrong == [] and tries.answers.total() == 20


def test_every_file_that_a_number_depends_on_has_a_reader(bench):
    from flips import _by_kind

    for files in _by_kind(bench).values():
        assert list(readers(bench, files[0])), files[0]


def test_the_campaign_sees_another_result(bench, tmp_path_factory):
    """Were it blind, it would find nothing."""
    spoilt = copy_of(bench, tmp_path_factory.mktemp("blind") / "results")
    flip(spoilt.results / "sample/board/fm_ot/3/samples.npy", random.Random(0))
    job = jobs(bench)["sample/board/fm_ot"]
    assert result(spoilt, job) != result(bench, job)
    assert result(copy_of(bench, spoilt.results), job) == result(bench, job)


def test_an_undisturbed_job_gives_the_same_result(bench, tmp_path_factory):
    """Were times part of a result, each try of that job would seem to be a fault."""
    work, other = tmp_path_factory.mktemp("undisturbed"), []
    for name, job in jobs(bench).items():
        fresh = copy_of(bench, work / "results")
        clear(fresh.results, job, memory=True)
        said = in_child(lambda j=job, b=fresh: j.run(b), work / "said")
        if said is None or said.code or result(fresh, job) != result(bench, job):
            other.append((name, said))
    assert other == []
