"""DDIM (Song, Meng & Ermon 2021) for any affine path and any prediction, in its equivalent forms.

x_t and the network's prediction determine the data x1 and the noise x0. A step from t to t' keeps both:

    x_t' = a(t') x1 + s(t') x0.

The same update is a step of Euler's method for a rescaled state, with a prediction as slope and a ratio of the schedule as clock:

| form      | state       | clock       | slope   |
|-----------|-------------|-------------|---------|
| `x`       | x_t / s     | a / s       | x1      |
| `epsilon` | x_t / a     | s / a       | x0      |
| `u`       | x_t/(a + s) | s / (a + s) | x0 - x1 |

On the straight path a = t, s = 1 - t the last form is Euler's method on the velocity itself. A form is undefined where its
divisor is zero, and the plain update where the prediction does not determine both x1 and x0. At second order (Heun's method in
the clock of a form) the forms differ: it then matters which prediction is held constant over a step.
"""

from collections.abc import Callable

from torch import Tensor

from fmbench.flow.fields import Field, checked
from fmbench.flow.paths import AffinePath, Coefficients
from fmbench.flow.prediction import EPSILON, Prediction, X, convert

_DIVISORS: dict[str, Callable[[Coefficients], Tensor]] = {
    "x": lambda c: c.s,
    "epsilon": lambda c: c.a,
    "u": lambda c: c.a + c.s,
}
_CLOCKS: dict[str, Callable[[Coefficients], Tensor]] = {
    "x": lambda c: c.a / c.s,
    "epsilon": lambda c: c.s / c.a,
    "u": lambda c: c.s / (c.a + c.s),
}
FORMS = ("plain", *_DIVISORS)
"""The forms of a step; ``plain`` is the update in x1 and x0."""


def ddim(
    network: Field, x: Tensor, grid: Tensor, path: AffinePath, prediction: Prediction, form: str = "plain", order: int = 1
) -> Tensor:
    """Integrate along ``grid`` by DDIM (Song, Meng & Ermon 2021, eq. 12): one evaluation of the network a step, two at order 2.

    Args:
        network: its prediction at (t, x), t of shape (); wrap it in a :class:`~fmbench.flow.fields.CountingField` to count.
        x: initial state, shape (B, *).
        grid: times, float64, shape (N + 1,), in either direction.
        prediction: what the network puts out.
        form: ``plain``, ``x``, ``epsilon`` or ``u``; all give the same result at order 1.
        order: 1, or 2 for Heun's method in the clock of ``form``; ``plain`` has no clock.

    Returns:
        The final state, shape (B, *).

    Raises:
        ValueError: an unknown form, an order that the form does not have, a divisor that is zero at a time of the grid, or a
            network that returns another shape, type or device than that of x.
    """
    network = checked(network)
    if form not in FORMS:
        raise ValueError(f"unknown form of DDIM {form!r}; known: {', '.join(FORMS)}")
    if order not in (1, 2) or (order == 2 and form == "plain"):
        raise ValueError(f"order must be 1, or 2 for the forms {', '.join(_DIVISORS)}, not {order} for {form!r}")
    times = grid.to(x.device)
    c = path.coefficients(times)

    def data_and_noise(k: int, y: Tensor) -> tuple[Tensor, Tensor]:
        output = network(times[k], y)
        return tuple(convert(output, y, times[k], path, prediction, target) for target in (X, EPSILON))  # type: ignore[return-value]

    if form == "plain":
        a, s = c.a.to(x.dtype), c.s.to(x.dtype)
        for k in range(len(grid) - 1):
            data, noise = data_and_noise(k, x)
            x = a[k + 1] * data + s[k + 1] * noise
        return x

    divisor = _DIVISORS[form](c)
    if (divisor == 0).any():
        at = grid[(divisor == 0).cpu()][0].item()
        raise ValueError(
            f"DDIM in the form {form!r} divides by zero at t = {at:g}; leave that time out of the grid, or take 'plain'"
        )
    clock = _CLOCKS[form](c)
    steps, scale = (clock[1:] - clock[:-1]).to(x.dtype), divisor.to(x.dtype)

    def slope(k: int, y: Tensor) -> Tensor:
        data, noise = data_and_noise(k, y)
        return {"x": data, "epsilon": noise, "u": noise - data}[form]

    z = x / scale[0]
    for k in range(len(grid) - 1):
        first = slope(k, scale[k] * z)
        after = z + steps[k] * first
        if order == 2:
            after = z + steps[k] * (first + slope(k + 1, scale[k + 1] * after)) / 2
        z = after
    return scale[-1] * z
