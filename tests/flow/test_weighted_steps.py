"""The loops of the multistep methods: the formulas applied one by one, and the operations on tensors that a step takes."""

from collections import Counter
from typing import Any

import pytest
import torch
from draws import draw
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fmbench.flow.paths import AffinePath, CosineVP, OptimalTransport, VarianceExploding, VariancePreserving
from fmbench.flow.prediction import EPSILON, PREDICTIONS, Prediction, X, convert
from fmbench.flow.solvers.grids import quadratic_grid, uniform_grid
from fmbench.flow.solvers.multistep import Level, Multistep
from fmbench.flow.solvers.registry import MULTISTEP
from fmbench.flow.solvers.weighted_steps import Conversion, Plan, Sum, steps_of

every_method = pytest.mark.parametrize("name", MULTISTEP)


def network(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(2 * x) + (1 + t) * x.flip(-1) - t**2


def levels_of(path: AffinePath, grid: Tensor) -> list[Level]:
    c = path.coefficients(grid)
    columns = zip(grid.tolist(), c.a.tolist(), c.s.tolist(), (path.log_snr(grid) / 2).tolist(), (c.s / c.a).tolist(), strict=True)
    return [Level(*values) for values in columns]


def by_formulas(method: Multistep, x: Tensor, grid: Tensor, path: AffinePath, prediction: Prediction) -> Tensor:
    """Predict, evaluate, correct, with the formulas on tensors: the corrected state takes the place of the predicted one."""
    at, m = levels_of(path, grid), []
    before, order = x, 0
    for k in range(len(grid) - 1):
        m.insert(0, convert(network(grid[k], x), x, grid[k], path, prediction, method.prediction))
        corrects = k and method.correctors
        y = method.correctors[order - 1](before, m[: order + 1], at[k - order : k][::-1], at[k]) if corrects else x
        left = len(grid) - 1 - k
        order = min(k + 1, len(method.predictors), left if method.lower_order_final else k + 1)
        before = y
        x = method.predictors[order - 1](y, m[:order], at[k - order + 1 : k + 1][::-1], at[k + 1])
    return x


@every_method
@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize(
    "path", [OptimalTransport(0.0), OptimalTransport(0.05), VariancePreserving(), VarianceExploding(0.2, 5.0)], ids=repr
)
def test_both_loops_are_the_formulas_one_by_one(name, prediction, path):
    x, grid = path.base_std * draw(1, 4, 2), quadratic_grid(0.1, 0.9, 7)
    expected = by_formulas(MULTISTEP[name], x, grid, path, prediction)
    torch.testing.assert_close(MULTISTEP[name].solve(network, x, grid, path, prediction), expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(MULTISTEP[name].solve(network, x, grid, path, prediction), expected, rtol=1e-10, atol=1e-10)


class Operations(TorchDispatchMode):
    """Counts the operations that compute a tensor; views and the field's own are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("add", "add_", "lerp_", "mul", "copy_", "mv", "clone"):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def operations(name: str, path: AffinePath, steps: int, shape: tuple[int, ...] = (4, 2)) -> int:
    plan = MULTISTEP[name].plan(uniform_grid(0.1, 0.9, steps), path)
    with Operations() as counting:
        plan.run(lambda t, x: -x, draw(3, *shape))
    return counting.counts.total()


OLDER = {"ab2": 1, "ab3": 2, "ab4": 3, "deis2": 1, "deis3": 2, "ipndm": 3, "dpmpp_2m": 1, "dpmpp_3m": 2, "unipc2": 2, "unipc3": 3}
"""The older predictions that a step adds; of UniPC also the one that the corrector reaches."""


@every_method
def test_a_step_takes_as_few_operations_as_stated(name):
    """One for x + beta p, one for each older prediction, one to keep its own; where a path bends, one to multiply x."""
    keeping = 0 if name in ("ab2", "ab3", "ab4") else 1
    paths = OptimalTransport(), VarianceExploding(0.2, 5.0), CosineVP()
    straight, exploding, bent = (operations(name, path, 12) - operations(name, path, 11) for path in paths)
    assert straight == 1 + OLDER[name] + keeping
    assert exploding == straight - (MULTISTEP[name].prediction is EPSILON)  # the velocity is a multiple of the noise there
    assert bent == straight + keeping


@every_method
def test_a_step_of_few_numbers_takes_three_operations(name):
    """With derivatives or more numbers it takes those of the test above."""
    for path in (OptimalTransport(), CosineVP()):
        with torch.no_grad():
            few, many = (operations(name, path, 12, shape) - operations(name, path, 11, shape) for shape in ((512, 2), (513, 2)))
        assert few == 3
        assert many == operations(name, path, 12) - operations(name, path, 11)


@every_method
def test_nobody_sees_a_state_overwritten(name):
    """A network may keep the states that it is given and return one, and a plan may be used again."""
    seen, path, grid = [], OptimalTransport(), uniform_grid(0.1, 0.9, 9)
    x = draw(5, 4, 2)

    def keeping(t: Tensor, x: Tensor) -> Tensor:
        seen.append((x, x.clone()))
        return x

    plan = MULTISTEP[name].plan(grid, path)
    expected = plan.run(lambda t, x: x.clone(), x)
    with torch.no_grad():
        ends = [plan.run(keeping, x), plan.run(keeping, 2 * x)]
    assert len(seen) == 18 and all(torch.equal(kept, then) for kept, then in seen)
    torch.testing.assert_close(ends, [expected, 2 * expected], rtol=1e-12, atol=1e-12)


@every_method
def test_few_numbers_keep_their_type(name):
    """In a type rounder than float32 the weights would be rounded too, so such states are added up as large ones are."""
    path, grid, x = CosineVP(), uniform_grid(0.1, 0.9, 9), draw(6, 4, 2)
    plan = MULTISTEP[name].plan(grid, path)
    for dtype in (torch.float32, torch.bfloat16):
        of_type = lambda t, x, dtype=dtype: network(t, x.double()).to(dtype)  # noqa: E731
        added = plan.run(of_type, x.to(dtype))
        with torch.no_grad():
            end = plan.run(of_type, x.to(dtype))
            for wrong in (lambda t, x: x.half(), lambda t, x: x[:1]):
                with pytest.raises(ValueError, match="the velocity must have the shape, type and device of x"):
                    plan.run(wrong, x.to(dtype))
        assert end.dtype == dtype
        torch.testing.assert_close(end, added, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 0)


@every_method
def test_no_more_states_are_held_than_stated(name):
    plan = MULTISTEP[name].plan(uniform_grid(0.1, 0.9, 12), OptimalTransport())
    assert max(len(step.older) for step in plan.steps) == OLDER[name]
    assert plan.steps[-1].keep is None


def test_weights_that_cannot_be_interpolated_are_added():
    """0.05 x - 0.5 q + 1.45 q' has the partial sums 0.05 and -0.45; its weights still sum to 1."""
    conversions = [Conversion(1.0, 1.0)] * 3
    sums = [Sum(1.0, [0.2]), Sum(1.0, [0.3, 0.1]), Sum(-0.25, [0.3, -0.5, 1.45])]
    steps = steps_of(sums, conversions)
    assert not steps[2].blends
    x, grid = draw(4, 3, 2), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    end, q = x, []
    for t, (state, weights) in zip(grid, sums, strict=False):
        q.insert(0, end + network(t, end))
        end = state * end + sum(w * q_i for w, q_i in zip(weights, q, strict=False))
    torch.testing.assert_close(Plan(grid, steps, (1, 2, 3)).run(network, x), end, rtol=1e-13, atol=1e-13)


def test_a_predictor_without_the_state_cannot_be_corrected():
    predictor, corrector = (lambda x, m, at, to: m[0]), (lambda x, m, at, to: x + m[0])
    with pytest.raises(ValueError, match="needs a predictor in which x has a weight"):
        Multistep(X, "t", (predictor,), (corrector,)).plan(uniform_grid(0.1, 0.9, 3), OptimalTransport())
