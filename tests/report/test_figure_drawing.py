"""How figures are drawn: densities, sheets of images, scales, ticks and lines."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from fmbench.report.figures import axes, pictures
from fmbench.report.figures.fig07_error import fig07
from fmbench.report.figures.fig07_quality import fig07_quality, fig07_quality_data
from fmbench.report.figures.samplers import samplers


def test_a_density_does_not_depend_on_the_number_of_points():
    points = np.array([[0.5, 1.5], [0.5, 1.5], [-1.5, 0.5], [9.0, 0.0]])
    shades = pictures.density(points, reach=2.0, bins=4)
    expected = np.zeros((4, 4))
    expected[3, 2], expected[2, 0] = 0.5, 0.25  # rows are y, from low to high; points outside count in the total
    np.testing.assert_array_equal(shades, expected)
    np.testing.assert_array_equal(pictures.density(np.repeat(points, 3, axis=0), 2.0, 4), expected)


def test_many_points_are_drawn_as_a_density_and_few_as_points(monkeypatch):
    used = []
    monkeypatch.setattr(Axes, "imshow", lambda self, values, **_: used.append(("density", len(values))))
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **_: used.append(("points", len(x))))
    real = pd.DataFrame({"values": list(np.ones((5, 2))), "shape": [[2]] * 5})
    axis = plt.figure().add_subplot()
    for n in (pictures.DENSE - 1, pictures.DENSE):
        pictures.plane(axis, pd.DataFrame({"values": list(np.zeros((n, 2))), "shape": [[2]] * n}), real)
    plt.close()
    assert used == [("points", pictures.DENSE - 1), ("density", 60)]


def test_points_outside_of_the_frame_are_counted_in_it():
    real = pd.DataFrame({"values": list(np.ones((5, 2))), "shape": [[2]] * 5})  # a frame of 1.25
    figure, (few, more) = plt.subplots(1, 2)
    for axis, n in ((few, 5), (more, 6)):
        points = np.zeros((100, 2))
        points[:n, n % 2] = -1.3
        pictures.plane(axis, pd.DataFrame({"values": list(points), "shape": [[2]] * 100}), real)
    assert [t.get_text() for t in few.texts] == [] and [t.get_text() for t in more.texts] == ["6% outside"]
    plt.close(figure)


def test_a_sheet_is_in_the_order_of_the_noise_row_by_row():
    images = np.arange(4).reshape(4, 1, 1, 1) * np.ones((4, 3, 2, 1))
    sheet = pictures.tiled(images, 2, 2, brightest=4.0)
    assert sheet.shape == (5, 3, 3)
    np.testing.assert_array_equal(sheet[::3, ::2, 0], [[0, 0.25], [0.5, 0.75]])
    assert (sheet[2] == 1).all() and (sheet[:, 1] == 1).all()  # paper between
    assert pictures.tiled(images[:, :1], 2, 2, 4.0)[0, 0, 0] == 1  # one channel is ink on paper


@pytest.mark.parametrize(("channels", "rows", "columns"), [(2, 1, 2), (4, 2, 2), (5, 2, 3), (13, 4, 4)])
def test_other_numbers_of_channels_are_blocks_of_grey_tiles(channels, rows, columns):
    images = np.arange(3 * channels * 2 * 5).reshape(3, channels, 2, 5)
    blocks = pictures.channel_blocks(images)
    assert blocks.shape == (3, 1, 2 * rows, 5 * columns)
    for c in range(channels):
        r, k = divmod(c, columns)
        np.testing.assert_array_equal(blocks[:, 0, 2 * r : 2 * r + 2, 5 * k : 5 * k + 5], images[:, c])
    assert blocks.sum() == images.sum()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (1, 7, 1), (3, 1, 1), (3, 5, 1), (2, 1, 4), (4, 3, 3), (6, 8, 2)])
@pytest.mark.parametrize("count", [(1, 1), (2, 1), (6, 6)])
def test_images_of_any_shape_and_number_of_channels_are_drawn_without_opacity(monkeypatch, shape, count):
    drawn = []
    monkeypatch.setattr(Axes, "imshow", lambda self, values, **_: drawn.append(values))
    values = np.random.default_rng(0).integers(1, 256, (40, *shape))
    rows = pd.DataFrame({"values": [v.ravel() for v in values], "shape": [list(shape)] * 40, "index": range(40)})
    figure, axis = plt.subplots()
    pictures.sheet(axis, rows, rows, *count)
    (paper,) = drawn
    assert paper.ndim == 2 if shape[0] != 3 else paper.shape[2:] == (3,)
    assert paper.min() >= 0 and paper.max() <= 1
    said = "" if shape[0] in (1, 3) else f"{shape[0]} channels, tile by tile"
    assert axis.get_xlabel() == said
    plt.close(figure)


def test_a_sheet_of_black_images_is_drawn():
    rows = pd.DataFrame({"values": [np.zeros(4)], "shape": [[1, 2, 2]], "index": [0]})
    figure, axis = plt.subplots()
    pictures.sheet(axis, rows, rows, 1, 1)
    np.testing.assert_array_equal(axis.images[0].get_array(), np.ones((2, 2)))  # paper without ink
    plt.close(figure)


def test_a_negative_distance_is_drawn():
    figure, (left, right) = plt.subplots(1, 2)
    axes.log_or_signed(left, pd.Series([0.001, 0.1]))
    axes.log_or_signed(right, pd.Series([-0.001, 0.1]))
    assert (left.get_yscale(), right.get_yscale()) == ("log", "symlog")
    low, high = axes.limits(pd.Series([-0.001, 0.1]))
    assert low < -0.001 and high > 0.1
    plt.close(figure)


@pytest.mark.parametrize(
    ("values", "scale", "texts"),
    [
        ([-0.0013, 0.0025], "linear", None),  # no power of ten between
        ([-0.4, -0.1], "linear", None),
        ([0.0, 0.0], "linear", None),
        ([-0.001, 0.011], "symlog", ["0", "0.002", "0.005", "0.01"]),
        ([-0.0013, 0.06], "symlog", ["0", "0.005", "0.01", "0.02", "0.05"]),
        ([-0.0013, 2.0], "symlog", ["0", "$10^{-2}$", "$10^{-1}$", "$10^{0}$"]),
    ],
)
def test_an_axis_around_zero_can_be_read(values, scale, texts):
    figure, axis = plt.subplots(figsize=(3.4, 2.2))
    axis.plot(range(2), values)
    axes.log_or_signed(axis, pd.Series(values))
    low, high = axes.limits(pd.Series(values))
    assert axis.get_yscale() == scale and low < min(values) and high > max(values)
    axis.set_ylim(low, high)
    shown = [t for t in axis.get_yticks() if low <= t <= high]
    assert len(shown) >= 3 and 0 in shown
    if texts:
        assert [t.get_text() for t in axis.get_yticklabels()] == texts
        named = dict(zip(axis.get_yticks(), texts, strict=True))
        assert all(float(text) == tick for tick, text in named.items() if "^" not in text)
    plt.close(figure)


def test_ticks_of_the_x_axis_do_not_change_those_of_the_y_axis():
    figure, axis = plt.subplots()
    axis.plot([4, 40], [20, 90])
    axis.set_xscale("log")
    axes.log_or_signed(axis, pd.Series([20, 90]))
    axes.ticks_at(axis, [4, 40])
    figure.canvas.draw()
    assert [t.get_text() for t in axis.get_yticklabels(minor=True) if t.get_text()] and not axis.get_xticks(minor=True).size
    plt.close(figure)


def test_ticks_continue_to_the_furthest_value():
    assert axes.beyond([4, 8, 40], 240) == [100, 200]
    assert axes.beyond([4, 8], 50) == [20, 50]
    assert axes.beyond([4, 8, 40], 60) == axes.beyond([4, 100], 50) == axes.beyond([], 50) == []


def test_fig07_draws_geometric_means_and_the_references_error_where_it_is_near():
    """Two seeds a factor of 100 apart; the reference's own error is a tenth of the best of a, a hundredth of the best of b."""
    rows = [
        {"dataset": "d", "method": m, "seed": s, "metric": "mse", "solver": "euler", "nfe": nfe, "mse": 10.0 ** (2 * s) / nfe}
        for m, s, nfe in product(("a", "b"), (0, 1), (4.0, 10.0))
    ]
    rows += [rows[0] | {"method": m, "metric": "reference_mse", "mse": own} for m, own in (("a", 0.1), ("b", 0.01))]
    figure = fig07(pd.DataFrame(rows).assign(status="ok", n=9, reference="r", nll=1.0, nll_unit="nats"))
    lines = [np.asarray(line.get_ydata(), float) for line in figure.axes[0].get_lines()]
    assert [line.tolist() for line in lines if len(set(line)) > 1] == [pytest.approx([2.5, 1.0])] * 2
    assert [line[0] for line in lines if len(set(line)) == 1] == [0.1]
    plt.close(figure)


def test_a_negative_estimate_is_drawn_hollow():
    rows = [
        {"path": "ot", "sampler": "Euler", "kind": "ode", "nfe": nfe, "energy_distance": v, "floor": 1e-4}
        for nfe, v in ((6, 0.1), (12, -0.01), (24, 0.001))
    ]
    figure = samplers(pd.DataFrame(rows))
    hollow = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in hollow] == [([12], [0.01])]
    plt.close(figure)


def test_crosses_of_the_adaptive_solver_have_ticks(whole):
    figure = fig07_quality(fig07_quality_data(whole))
    for axis in figure.axes:
        assert [t.get_text() for t in axis.get_xticklabels()] == ["50", "20", "8", "4"]
    plt.close(figure)


def test_ticks_that_would_touch_are_left_out():
    figure, axis = plt.subplots()
    axis.set_xscale("log")
    axes.ticks_at(axis, [4, 8, 12, 20, 40, 60, 100])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["100", "40", "20", "8", "4"]
    plt.close(figure)
