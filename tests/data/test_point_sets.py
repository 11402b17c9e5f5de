"""Point sets: densities, entropies, curves."""

import numpy as np
import pytest

from fmbench.config import datasets
from fmbench.data import points
from fmbench.data.sources import SOURCES, make

G = np.random.default_rng(0)


@pytest.mark.parametrize("name", datasets.POINT_SETS[1:])
def test_the_entropy_agrees_with_the_points(name):
    """The mean of -log p over the points is the entropy, so density, draws and integral agree."""
    raw = make(name, {"train": 10_000, "test": 100})
    density = points.Pinwheel() if name == "pinwheel" else points.noisy_curve(name, _noise(name))
    surprise = -density.log_density(raw.train)
    assert surprise.mean() == pytest.approx(raw.entropy, abs=4 * surprise.std() / 100)
    assert raw.train.dtype == np.float32
    assert raw.train.std(0).min() > 0.6 and raw.train.std(0).max() < 1.3
    assert np.abs(raw.train.mean(0)).max() < 0.06
    again = make(name, {"train": 50, "test": 100})
    assert np.array_equal(again.test, raw.test) and not {*map(tuple, raw.test)} & {*map(tuple, raw.train)}


def _noise(name: str) -> float:
    return SOURCES[name].__defaults__[-1]


@pytest.mark.parametrize("name", points.CURVES)
def test_a_density_integrates_to_one_and_more_nodes_change_nothing(name):
    noise = _noise(name)
    curve, nodes = points.CURVES[name]
    density = points.noisy_curve(name, noise)
    grid = np.arange(-3.5, 3.5, 0.05)
    p = np.exp(density.log_density(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)))
    assert p.sum() * 0.05**2 == pytest.approx(1, abs=1e-6)
    finer = points.NoisyCurve(curve((np.arange(4 * nodes) + 0.5) / (4 * nodes)), noise)
    assert finer.entropy() == pytest.approx(density.entropy(), abs=2e-4)


def test_entropies_in_closed_form():
    """One Gaussian has log(2 pi e s^2); eight far apart log 8 more; a pinwheel of one blade that of its Gaussian."""
    one = np.log(2 * np.pi * np.e * 0.3**2)
    assert points.NoisyCurve(np.zeros((1, 2)), 0.3).entropy() == pytest.approx(one, abs=1e-9)
    assert points.NoisyCurve(100 * np.arange(16.0).reshape(8, 2), 30.0 / 30).entropy() == pytest.approx(
        np.log(8 * 2 * np.pi * np.e), abs=1e-9
    )
    blade = np.log(2 * np.pi * np.e * 0.35 * 0.1)
    assert points.Pinwheel(1).entropy() == pytest.approx(blade, abs=1e-9)


def test_the_twist_of_the_pinwheel_is_undone_and_keeps_areas():
    wheel, x = points.Pinwheel(), G.standard_normal((50, 2))
    assert wheel.turn(wheel.turn(x), -1.0) == pytest.approx(x)
    h = 1e-6
    columns = [(wheel.turn(x + h * e) - wheel.turn(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.linalg.det(np.stack(columns, -1)) == pytest.approx(1, abs=1e-6)


def test_shapes_of_the_curves():
    u = np.linspace(0, 1, 4001)[:-1]
    curves = {name: curve(u) for name, (curve, _) in points.CURVES.items()}
    assert np.hypot(*curves["eight_gaussians"].T) == pytest.approx(1.5)
    assert len(np.unique(curves["eight_gaussians"].round(6), axis=0)) == 8
    assert sorted(set(np.hypot(*curves["rings"].T).round(9))) == [0.5, 1, 1.5, 2]
    arms = curves["spirals"].reshape(2, -1, 2)
    assert arms[0] == pytest.approx(-arms[1])
    moons = curves["two_moons"].reshape(2, -1, 2)
    assert moons[0][:, 1].min() >= -0.35 - 1e-9 and moons[1][:, 1].max() <= 0.35 + 1e-9


@pytest.mark.parametrize(("name", "noise"), [("rings", 0.0), ("two_moons", -1.0), ("spirals", 1e-3), ("eight_gaussians", 2.0)])
def test_a_noise_without_a_density(name, noise):
    with pytest.raises(ValueError, match=rf"'{name}': noise: must be .* (0\.01|1\.0|1), not {noise}"):
        make(name, {"noise": noise})
