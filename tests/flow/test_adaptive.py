"""Adaptive dopri5."""

import itertools
import math

import pytest
import torch
from ode_fields import (
    Recorder,
    both_directions,
    solution_of_uneven,
    spread,
    square,
    uneven,
    wavy,
)
from torch import Tensor

from fmbench.flow.fields import CountingField
from fmbench.flow.solvers.adaptive import dopri5
from fmbench.flow.solvers.tableaux import DOPRI5

STAGE_TIMES = torch.tensor(DOPRI5.c, dtype=torch.float64)


both_modes = pytest.mark.parametrize("per_sample", [True, False], ids=["per_sample", "shared"])


@both_modes
@both_directions
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
def test_the_error_is_of_the_size_of_the_tolerance(per_sample, ends, tolerance):
    x0 = spread(6, 2, 3) / 4
    exact = {0.0: x0, 1.0: x0 * math.exp(-math.sin(6) / 3)}
    solution = dopri5(wavy, exact[ends[0]], *ends, rtol=tolerance, atol=tolerance, per_sample=per_sample)
    assert not solution.failed.any()
    torch.testing.assert_close(solution.x, exact[ends[1]], rtol=5 * tolerance, atol=5 * tolerance)


def test_a_tighter_tolerance_is_a_smaller_error_for_more_evaluations():
    x = spread(5, 2)
    solutions = [dopri5(uneven, x, 0, 1, rtol=tol, atol=tol) for tol in (1e-3, 1e-5, 1e-7, 1e-9)]
    errors = [(s.x - solution_of_uneven(1.0, x)).abs().amax(1) for s in solutions]
    for (e1, e2), (s1, s2) in zip(itertools.pairwise(errors), itertools.pairwise(solutions), strict=True):
        assert (e2 < e1 / 3).all()
        # The local error of a step falls as h^5: a hundredth of the tolerance is 2.5 times the steps at most.
        assert (s2.nfe > s1.nfe).all()
        assert (s2.nfe < 100**0.2 * s1.nfe + 12).all()


@both_directions
def test_nfe_is_what_the_field_saw_and_two_plus_six_per_step(ends):
    x = spread(9, 2)
    shared, single = CountingField(uneven), CountingField(uneven)
    together = dopri5(shared, x, *ends, per_sample=False)
    apart = dopri5(single, x, *ends, per_sample=True)
    assert together.nfe.tolist() == [shared.calls] * 9
    assert shared.evaluations == 9 * shared.calls
    assert int(apart.nfe.sum()) == single.evaluations
    assert single.calls == int(apart.nfe.max())
    assert len(apart.nfe.unique()) > 2
    for nfe in (together.nfe, apart.nfe):
        assert nfe.dtype == torch.int64
        assert ((nfe - 2) % 6 == 0).all()


def test_nfe_counts_accepted_and_rejected_steps():
    """The steps are read back from the times of their six stages: c_i h after the time of the step."""

    def kicked(t: Tensor, x: Tensor) -> Tensor:
        return -x + 40 * torch.exp(-(((t - 0.55) / 0.06) ** 2))

    field = Recorder(kicked)
    solution = dopri5(field, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, per_sample=False)
    times = torch.stack(field.times)
    assert times[0] == 0
    stages = times[2:].reshape(-1, 6)
    h = (stages[:, -1] - stages[:, 0]) / (1 - 1 / 5)
    begin, end = stages[:, 0] - h / 5, stages[:, -1]
    torch.testing.assert_close(stages, begin[:, None] + h[:, None] * STAGE_TIMES[1:], rtol=0, atol=1e-14)
    accepted = torch.cat([(begin[1:] - end[:-1]).abs() < 1e-13, torch.tensor([True])])
    rejected = torch.cat([(begin[1:] - begin[:-1]).abs() < 1e-13, torch.tensor([False])])
    assert (accepted ^ rejected).all()
    assert rejected.sum() >= 2
    assert float(h[accepted].sum()) == pytest.approx(1, abs=1e-13)
    assert int(solution.nfe) == 2 + 6 * int(accepted.sum() + rejected.sum())
    # Hairer, Norsett & Wanner's bounds on the change of the step size; the last step is cut to the end.
    ratio = h[1:-1] / h[:-2]
    assert ratio.max() <= 10 + 1e-9
    assert ratio.min() >= 0.2 - 1e-9
    assert (ratio[accepted[:-2]] >= 1 - 1e-9).all()
    assert (ratio[rejected[:-2]] < 1).all()


def test_a_straight_constant_field_costs_three_steps():
    """First step h = (0.01 / |v/scale|)^(1/5) = 0.0435, then tenfold, then the rest: 2 + 6 * 3."""
    x, v = torch.ones(2, 3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    solution = dopri5(lambda t, x: v.expand_as(x), x, 0, 1)
    assert solution.nfe.tolist() == [20, 20]
    torch.testing.assert_close(solution.x, x + v, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@both_directions
def test_a_sample_does_not_depend_on_its_batch(dtype, ends):
    x = solution_of_uneven(ends[0], spread(12, 1, 2, 3)).to(dtype)
    batch = dopri5(uneven, x, *ends)
    for i in range(12):
        alone = dopri5(uneven, x[i : i + 1], *ends)
        assert alone.nfe[0] == batch.nfe[i]
        torch.testing.assert_close(alone.x[0], batch.x[i])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = dopri5(uneven, x[order], *ends)
    assert torch.equal(shuffled.nfe, batch.nfe[order])
    torch.testing.assert_close(shuffled.x, batch.x[order])


def test_with_a_shared_step_size_a_sample_depends_on_its_batch():
    """The reason for measuring NFE per sample."""
    x = spread(12, 2)
    together = dopri5(uneven, x, 0, 1, per_sample=False).nfe
    alone = [int(dopri5(uneven, x[i : i + 1], 0, 1, per_sample=False).nfe) for i in range(12)]
    assert alone == dopri5(uneven, x, 0, 1).nfe.tolist()
    assert min(alone) < int(together[0])


@both_modes
@both_directions
def test_the_field_is_never_evaluated_outside_the_interval(per_sample, ends):
    """The first-step probe of the plain recipe went to t = 30.9 on a VP path; so it does here, with |x| >> |v|."""

    def slow(t: Tensor, x: Tensor) -> Tensor:
        return 1e-6 * torch.ones_like(x)

    low, high = min(ends), max(ends)
    for inner, x in ((uneven, spread(8, 2)), (wavy, spread(8, 2)), (slow, spread(8, 2))):
        field = Recorder(inner)
        dopri5(field, x, *ends, per_sample=per_sample)
        times = torch.cat([t.reshape(-1) for t in field.times])
        assert times.min() >= low - 1e-15
        assert times.max() <= high + 1e-15
        assert times[0] == ends[0]


@both_modes
def test_the_end_is_hit_and_not_interpolated(per_sample):
    field = Recorder(uneven)
    dopri5(field, spread(1, 2), 0.0, 1 - 1e-5, per_sample=per_sample)
    assert field.times[-1].reshape(-1)[0].item() == pytest.approx(1 - 1e-5, abs=1e-15)


@both_modes
def test_there_and_back(per_sample):
    x = spread(5, 2, 3) / 5
    there = dopri5(uneven, x, 0.0, 1.0, rtol=1e-10, atol=1e-10, per_sample=per_sample)
    back = dopri5(uneven, there.x, 1.0, 0.0, rtol=1e-10, atol=1e-10, per_sample=per_sample)
    torch.testing.assert_close(back.x, x, rtol=1e-7, atol=0)


def test_a_blow_up_is_flagged_and_leaves_the_others_alone():
    x = torch.tensor([[0.5], [2.0], [-3.0], [1.25], [0.1]], dtype=torch.float64)
    solution = dopri5(square, x, 0, 1)
    assert solution.failed.tolist() == [False, True, False, True, False]
    good = ~solution.failed
    torch.testing.assert_close(solution.x[good], 1 / (1 / x[good] - 1), rtol=1e-4, atol=0)
    # The last good state of a lost sample lies on its way up.
    assert (solution.x[~good] > 1e3).all()
    assert solution.x.isfinite().all()
    alone = dopri5(square, x[good], 0, 1)
    assert torch.equal(alone.nfe, solution.nfe[good])
    torch.testing.assert_close(alone.x, solution.x[good])


def test_a_blow_up_fails_the_whole_batch_that_shares_its_step():
    x = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    assert dopri5(square, x, 0, 1, per_sample=False).failed.tolist() == [True, True]
    assert dopri5(square, x[:1], 0, 1, per_sample=False).failed.tolist() == [False]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_field_that_is_not_finite_for_one_sample(bad):
    def field(t: Tensor, x: Tensor) -> Tensor:
        return torch.where((x[:, :1] > 100) | ((x[:, :1] > 10) & (t[:, None] > 0.5)), bad, -x)

    x = torch.tensor([[1.0, 2.0], [1000.0, 1.0], [60.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    solution = dopri5(field, x, 0, 1)
    assert solution.failed.tolist() == [False, True, True, False]
    torch.testing.assert_close(solution.x[[0, 3]], x[[0, 3]] * math.exp(-1), rtol=1e-4, atol=0)
    assert torch.equal(solution.x[1], x[1])  # it never made a step
    torch.testing.assert_close(solution.x[2], x[2] * math.exp(-0.5), rtol=1e-4, atol=0)  # it reached t = 0.5


@both_modes
@pytest.mark.parametrize("end", [5, 1000], ids=["in the last step", "on the way"])
def test_an_overflow_is_flagged_and_leaves_the_last_good_state(per_sample, end):
    """dx/dt = 1e38: past float32's 3.4e38 after t = 3.4, where no error is left to refuse the step."""
    x = torch.tensor([[1e-3], [2e-3]])
    solution = dopri5(lambda t, x: torch.full_like(x, 1e38), x, 0, end, per_sample=per_sample)
    assert solution.failed.tolist() == [True, True]
    assert solution.x.isfinite().all() and (solution.x >= x).all()
    assert solution.nfe.max() < 500


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite(bad):
    x = torch.tensor([[1.0, 2.0], [bad, 1.0]])
    solution = dopri5(wavy, x, 0, 1)
    assert solution.failed.tolist() == [False, True]
    torch.testing.assert_close(solution.x[0], x[0] * math.exp(-math.sin(6) / 3), rtol=1e-4, atol=0)


@both_modes
@pytest.mark.parametrize("budget", [8, 20, 37, 100])
def test_max_nfe_is_kept_and_reported(per_sample, budget):
    x = spread(6, 2)
    free = dopri5(uneven, x, 0, 1, per_sample=per_sample)
    field = CountingField(uneven)
    solution = dopri5(field, x, 0, 1, per_sample=per_sample, max_nfe=budget)
    assert torch.equal(solution.failed, free.nfe > budget)
    assert solution.nfe.max() <= budget
    assert field.evaluations == int(solution.nfe.sum())
    done = ~solution.failed
    torch.testing.assert_close(solution.x[done], free.x[done])


@both_modes
def test_an_empty_interval_is_refused(per_sample):
    with pytest.raises(ValueError, match="empty"):
        dopri5(wavy, torch.ones(1, 2), 0.5, 0.5, per_sample=per_sample)


@both_modes
def test_the_input_is_not_written_to(per_sample):
    x = spread(4, 2)
    before = x.clone()
    dopri5(uneven, x, 0, 1, per_sample=per_sample)
    assert torch.equal(x, before)


@pytest.mark.parametrize("x0", [0.4, 1.3, 4.0])
@both_directions
def test_steps_agree_with_scipy_one_by_one(x0, ends):
    """SciPy's RK45 is the same pair with Dormand and Prince's own error weights, 3/2 of ours (Shampine's), and the same
    controller while steps are accepted and grow, as on this decay: at 3/2 of the tolerance it takes our steps."""
    from scipy.integrate import RK45

    def decay(t, x):
        return -6 * (ends[1] - ends[0]) * x / (1 + abs(t - ends[0]))

    start = torch.tensor([[x0, 0.5 * x0]], dtype=torch.float64)
    field = Recorder(decay)
    solution = dopri5(field, start, *ends, rtol=1e-6, atol=1e-6)
    times = torch.cat(field.times)
    first = 5 * abs(times[2].item() - ends[0])  # the automatic first step sees the tolerance, not the error weights
    reference = RK45(decay, ends[0], start[0].numpy(), ends[1], rtol=1.5e-6, atol=1.5e-6, first_step=first)
    steps = []
    while reference.status == "running":
        reference.step()
        steps.append(reference.t)
    assert 2 + 6 * len(steps) == int(solution.nfe)  # nothing was rejected
    assert len(steps) > 5
    torch.testing.assert_close(times[7::6], torch.tensor(steps), rtol=0, atol=1e-9)
    torch.testing.assert_close(solution.x[0], torch.from_numpy(reference.y), rtol=1e-9, atol=0)
