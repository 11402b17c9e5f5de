import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmbench.flow.general_paths import GeneralAffine, Rescaled
from fmbench.flow.paths import PATHS, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.solvers.grids import GRIDS, beta_grid, cosine_grid, karras_grid, log_snr_grid, shift_grid, uniform_grid

EVERY_PATH = [
    OptimalTransport(),
    OptimalTransport(0.0),
    VariancePreserving(),
    VarianceExploding(),
    CosineVP(),
    GeneralAffine(lambda t: t**2, lambda t: 1 - t**3),
    Rescaled(VariancePreserving(), lambda t: 1 + t),
]
every_path = pytest.mark.parametrize("path", EVERY_PATH, ids=lambda p: f"{type(p).__name__}{EVERY_PATH.index(p)}")
BY_LEVEL = {
    "karras": lambda sigma: sigma ** (1 / 7),
    "log_snr": lambda sigma: -2 * torch.log(sigma),
    "cosine": lambda sigma: 2 / math.pi * torch.atan(1 / sigma),
}
"""What is equally spaced, of the noise level sigma = s / a."""


def levels(path, grid):
    c = path.coefficients(grid)
    return c.s / c.a


@every_path
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 7, 61])
def test_grids_have_both_ends_exact_and_rise(path, name, steps):
    for t0, t1 in ((path.t_min, path.t_max), (0.1, 0.8)):
        grid = GRIDS[name](path, t0, t1, steps)
        assert (grid.shape, grid.dtype) == ((steps + 1,), torch.float64)
        assert (grid[0].item(), grid[-1].item()) == (t0, t1)
        assert (grid.diff() > 0).all()


@every_path
@pytest.mark.parametrize("name", BY_LEVEL)
@given(t0=st.floats(0.05, 0.4), t1=st.floats(0.5, 0.95), steps=st.integers(2, 60))
@settings(max_examples=8, deadline=None)
def test_levels_are_equally_spaced_in_their_function(path, name, t0, t1, steps):
    spacing = BY_LEVEL[name](levels(path, GRIDS[name](path, t0, t1, steps))).diff()
    torch.testing.assert_close(spacing, spacing.mean().expand(steps), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", BY_LEVEL)
def test_every_path_visits_the_same_levels(name):
    """Between levels 4 and 0.05, from times that differ by path."""
    wanted = []
    for path in EVERY_PATH:
        t0, t1 = path.time_of_log_snr(-2 * torch.tensor([4.0, 0.05], dtype=torch.float64).log()).tolist()
        wanted.append(levels(path, GRIDS[name](path, t0, t1, 12)))
    for found in wanted[1:]:
        torch.testing.assert_close(found, wanted[0], rtol=1e-8, atol=0)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_levels_are_eq_5(rho):
    path, n = VarianceExploding(0.002, 80.0), 18
    i = torch.arange(n + 1, dtype=torch.float64)
    expected = (80 ** (1 / rho) + i / n * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    torch.testing.assert_close(levels(path, karras_grid(path, 0.0, 1.0, n, rho)), expected, rtol=1e-10, atol=0)


def test_the_default_rho_is_seven_and_steps_get_shorter_in_level():
    path = VarianceExploding(0.002, 80.0)
    assert torch.equal(karras_grid(path, 0, 1, 10), karras_grid(path, 0, 1, 10, 7.0))
    assert (levels(path, karras_grid(path, 0, 1, 10)).diff().diff() > 0).all()


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.2, 0.7)])
def test_the_cosine_grid_of_the_cosine_path_is_uniform(ends):
    torch.testing.assert_close(cosine_grid(CosineVP(), 0.2, 0.7, 30), uniform_grid(0.2, 0.7, 30), rtol=0, atol=1e-13)
    # Between ends at infinite levels it runs from 80 to 0.002 instead: 0.008 and 0.001 of the time away.
    found = cosine_grid(CosineVP(), *ends, 30)
    torch.testing.assert_close(found, uniform_grid(*ends, 30), rtol=0, atol=0.01)


def test_the_cosine_path_of_variance_preserving_and_of_straight_lines_at_equal_levels():
    """tau = 2/pi atan(a / s): on the straight path t / (1 - t) = tan(pi tau / 2)."""
    grid = cosine_grid(OptimalTransport(0.0), 0.2, 0.8, 9)
    tau = torch.linspace(2 / math.pi * math.atan(0.25), 2 / math.pi * math.atan(4), 10, dtype=torch.float64)
    expected = torch.tan(math.pi * tau / 2)
    torch.testing.assert_close(grid, expected / (1 + expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BY_LEVEL)
def test_levels_stop_at_karras_bounds_where_the_path_has_none(name):
    """Noise alone and data alone have no finite level: the spacing is that from 80 to 0.002, the ends stay the path's."""
    path = OptimalTransport(0.0)
    grid = GRIDS[name](path, 0.0, 1.0, 10)
    assert (grid[0].item(), grid[-1].item()) == (0.0, 1.0)
    first, last = BY_LEVEL[name](torch.tensor([80.0, 0.002], dtype=torch.float64)).tolist()
    expected = first + (last - first) * torch.arange(1, 10) / 10
    torch.testing.assert_close(BY_LEVEL[name](levels(path, grid[1:-1])), expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(name, steps):
    with pytest.raises(ValueError, match=f"at least one step, not {steps}"):
        GRIDS[name](CosineVP(), 0.0, 1.0, steps)


@pytest.mark.parametrize("name", BY_LEVEL)
@pytest.mark.parametrize("ends", [(1.0, 0.0), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.0)])
def test_intervals_that_are_not_the_paths_are_refused(name, ends):
    with pytest.raises(ValueError, match=f"within .0.0, 0.99999., not {ends[0]} to {ends[1]}"):
        GRIDS[name](VariancePreserving(), *ends, 5)


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0])
def test_the_shift_divides_the_noise_level_of_the_straight_path(k):
    """Esser et al. 2024: t_noise -> k t_noise / (1 + (k - 1) t_noise) multiplies s / a by k there."""
    grid, even = shift_grid(0.0, 1.0, 8, k)[1:-1], uniform_grid(0.0, 1.0, 8)[1:-1]
    path = OptimalTransport(0.0)
    torch.testing.assert_close(levels(path, grid), k * levels(path, even), rtol=1e-12, atol=0)
    assert torch.equal(GRIDS["shift"](path, 0.1, 0.9, 5), shift_grid(0.1, 0.9, 5, 3.0))


def test_quadratic_and_beta_grids():
    left = 1 - GRIDS["quadratic"](CosineVP(), 0.0, 1.0, 4)
    assert left.tolist() == [1, 9 / 16, 1 / 4, 1 / 16, 0]
    grid = beta_grid(0.0, 1.0, 10)
    torch.testing.assert_close(torch.from_numpy(scipy.stats.beta(0.6, 0.6).cdf(grid.numpy())), uniform_grid(0.0, 1.0, 10))
    torch.testing.assert_close(grid, 1 - grid.flip(0), rtol=0, atol=1e-12)
    assert grid.diff()[0] < grid.diff()[4]
    torch.testing.assert_close(beta_grid(0.2, 0.7, 5, 1.0, 1.0), uniform_grid(0.2, 0.7, 5), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shift_grid(0.0, 1.0, 5, 0.0), "the shift must be positive, not 0.0"),
        (lambda: beta_grid(0.0, 1.0, 5, -1.0), "alpha and beta must be positive, not -1.0 and 0.6"),
    ],
)
def test_impossible_parameters_of_grids_in_time_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("rho", [0.0, -7.0, math.nan])
def test_an_impossible_rho_is_refused(rho):
    with pytest.raises(ValueError, match=f"rho must be positive, not {rho}"):
        karras_grid(CosineVP(), 0.0, 1.0, 5, rho)


def test_more_steps_than_there_are_times_are_refused():
    with pytest.raises(ValueError, match=r"50 steps from 0.5 to 0.5.* are too many"):
        log_snr_grid(OptimalTransport(), 0.5, 0.5 + 4e-16, 50)


KARRAS_IN_SIX = {  # noise levels of six steps; the second and the last but one are those after 80 and before 0.002
    "ot": [math.inf, 27.215296007021, 7.6038775723689, 1.5973535086207, 0.21382386727596, 0.012585442106483, 1e-4],
    "vp": [
        152.16697028395,
        54.532082254789,
        16.37712699978,
        3.8285290220243,
        0.61020744137675,
        0.050263742104765,
        0.0010004976266794,
    ],
    "ve": [50.0, 20.876526148015, 7.6945065808734, 2.4013154413379, 0.59355652014486, 0.10333788575415, 0.01],
    "cosine_vp": [math.inf, 30.183258054887, 9.7232013552601, 2.5152189761471, 0.46997905799775, 0.051532394322818, 0.0],
}


@pytest.mark.parametrize("name", KARRAS_IN_SIX)
def test_karras_levels_of_every_path(name):
    """A finite level at an end is kept: VP starts at 152 and ends at 0.001, beyond 80 and 0.002. The end takes the place of 80
    where its level is infinite, and that of 0.002 where it is zero."""
    path = PATHS[name]()
    found = levels(path, karras_grid(path, path.t_min, path.t_max, 6))
    torch.testing.assert_close(found, torch.tensor(KARRAS_IN_SIX[name], dtype=torch.float64), rtol=1e-11, atol=0)
    first, last = min(KARRAS_IN_SIX[name][0], 80.0) if name != "vp" else 152.16697028395, KARRAS_IN_SIX[name][-1] or 0.002
    k = torch.arange(1, 6, dtype=torch.float64) / 6
    between = (first ** (1 / 7) + k * (last ** (1 / 7) - first ** (1 / 7))) ** 7
    torch.testing.assert_close(found[1:-1], between, rtol=1e-9, atol=0)
