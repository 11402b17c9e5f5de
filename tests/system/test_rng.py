import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fmbench.system.rng import generator, indexed_normal, indexed_rademacher, indexed_uniform, named_seed, seed_global

DRAWS = [indexed_normal, indexed_uniform, indexed_rademacher]
seeds = st.integers(-(2**70), 2**70)
names = st.text(max_size=20)


@given(seeds, names)
@settings(max_examples=50, deadline=None)
def test_named_seed_is_the_first_63_bits_of_a_sha256(seed, name):
    digest = hashlib.sha256((str(seed) + "/" + name).encode()).digest()
    expected = sum(byte << (8 * i) for i, byte in enumerate(digest[:8])) // 2
    assert named_seed(seed, name) == expected
    assert 0 <= named_seed(seed, name) < 2**63


def test_named_seed_does_not_depend_on_the_process():
    """Python's own hash() is salted per process; results would change from run to run."""
    assert named_seed(0, "train") == 1382848523564605726
    assert named_seed(1, "train") != named_seed(0, "train") != named_seed(0, "noise")


def test_generator_streams_repeat_differ_by_name_and_resume_from_their_state():
    g = generator(3, "noise")
    first = torch.randn(5, generator=g)
    state = g.get_state()
    second = torch.randn(5, generator=g)

    assert torch.equal(first, torch.randn(5, generator=generator(3, "noise")))
    assert not torch.equal(first, torch.randn(5, generator=generator(3, "time")))
    assert not torch.equal(first, torch.randn(5, generator=generator(4, "noise")))
    resumed = generator(0, "another")
    resumed.set_state(state)
    assert torch.equal(second, torch.randn(5, generator=resumed))


@pytest.mark.parametrize("draw", DRAWS)
@given(indices=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6), seed=seeds, name=names)
@settings(max_examples=25, deadline=None)
def test_a_sample_depends_on_its_index_and_not_on_its_batch(draw, indices, seed, name):
    batch = draw(seed, name, indices, (2, 3))
    for row, index in zip(batch, indices, strict=True):
        assert torch.equal(row, draw(seed, name, [index], (2, 3))[0])


@pytest.mark.parametrize("draw", DRAWS)
def test_another_seed_name_or_index_gives_other_numbers(draw):
    def row(seed, name, index):
        return draw(seed, name, [index], (64,))[0]

    rows = [row(0, "a", 0), row(1, "a", 0), row(0, "b", 0), row(0, "a", 1), row(0, "a", 2**32)]
    for i, one in enumerate(rows):
        assert all(not torch.equal(one, other) for other in rows[i + 1 :])


@pytest.mark.parametrize("draw", DRAWS)
def test_streams_of_neighbouring_indices_do_not_overlap(draw):
    """A long draw of index 0 must not reach the numbers of index 1."""
    long = draw(0, "a", [0], (20_000,))[0].numpy()
    start = draw(0, "a", [1], (40,))[0].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(long, 40)
    assert not (windows == start).all(1).any()


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 5)])
@pytest.mark.parametrize("draw", DRAWS)
def test_shape_and_type(draw, shape):
    x = draw(0, "a", [4, 9], shape)
    assert x.shape == (2, *shape)
    assert x.dtype == torch.float32


def test_distributions():
    """The seed is fixed, so these tests of fit always have the same outcome."""
    indices = range(4000)
    normal = indexed_normal(0, "a", indices, (5,)).numpy()
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    uniform = indexed_uniform(0, "a", indices, (5,)).numpy()
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert uniform.min() >= 0
    assert uniform.max() < 1
    signs = indexed_rademacher(0, "a", indices, (5,)).numpy()
    assert set(np.unique(signs)) == {-1.0, 1.0}
    for x in (normal, uniform - 0.5, signs):
        x = x / x.std()
        # No correlation within a sample or between consecutive samples, up to five standard errors.
        assert np.abs(x.T @ x / len(x) - np.eye(5)).max() < 5 * np.sqrt(2 / len(x))
        assert np.abs((x[1:] * x[:-1]).mean(0)).max() < 5 / np.sqrt(len(x))


def test_global_generators_are_not_used():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.randn(3, generator=generator(0, "a"))
    for draw in DRAWS:
        draw(0, "a", [0, 1], (3,))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_the_global_generator_gets_the_state_that_torch_would_give_it():
    seed = named_seed(3, "train/dropout/0")
    torch.manual_seed(seed)
    theirs = torch.get_rng_state()
    torch.manual_seed(0)
    assert not torch.equal(torch.get_rng_state(), theirs)
    seed_global(seed, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), theirs)
