"""Explicit Runge-Kutta methods as Butcher tableaux. A step is x + h sum_i b_i k_i, k_i = f(t + c_i h, x + h sum_j a_ij k_j)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """A Butcher tableau that checks itself when built.

    Attributes:
        a: strictly lower triangular rows, row i of length i.
        b: weights of the step.
        c: nodes.
        order: order of convergence.
        b_low: weights of the embedded lower-order step, for adaptive solvers.

    Raises:
        ValueError: rows or weights have wrong lengths, a row of ``a`` does not sum to its node, or weights do not sum to 1.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int
    b_low: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        stages = len(self.b)
        if not len(self.a) == len(self.c) == stages:
            raise ValueError(f"{self.name}: a, b and c must have as many rows as stages ({stages})")
        for i, row in enumerate(self.a):
            if len(row) != i:
                raise ValueError(f"{self.name}: row {i} of an explicit tableau has {i} entries, not {len(row)}")
            if abs(sum(row) - self.c[i]) > 1e-12:
                raise ValueError(f"{self.name}: row {i} of a sums to {sum(row)}, its node is {self.c[i]}")
        for weights in (self.b, self.b_low):
            if weights is not None and abs(sum(weights) - 1) > 1e-12:
                raise ValueError(f"{self.name}: weights sum to {sum(weights)}, not to 1")

    @property
    def stages(self) -> int:
        """Evaluations of the field per step."""
        return len(self.b)


EULER = Tableau("euler", a=((),), b=(1.0,), c=(0.0,), order=1)
MIDPOINT = Tableau("midpoint", a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2)
HEUN = Tableau("heun", a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2)
RALSTON = Tableau("ralston", a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0.0, 2 / 3), order=2)
"""Ralston 1962: of all two-stage methods the one with the smallest bound on its local error."""
HEUN3 = Tableau("heun3", a=((), (1 / 3,), (0.0, 2 / 3)), b=(1 / 4, 0.0, 3 / 4), c=(0.0, 1 / 3, 2 / 3), order=3)
RK4 = Tableau(
    "rk4",
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    order=4,
)
"""The classical Runge-Kutta method. torchdiffeq's ``rk4`` is the 3/8 rule instead."""
RK4_38 = Tableau(
    "rk4_38",
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    order=4,
)
"""Kutta's 3/8 rule (Hairer, Norsett & Wanner, II.1); torchdiffeq's ``rk4``."""
DOPRI5 = Tableau(
    "dopri5",
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    order=5,
    b_low=(1951 / 21600, 0.0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60),
)
"""Dormand & Prince 1980. Its last row equals its weights, so the last stage of a step is the first of the next.

The embedded weights are Shampine's (1986), as in torchdiffeq, so NFE at a tolerance compares with numbers published from
torchdiffeq. Their error estimate is 2/3 of that of Dormand & Prince's own weights."""

FIXED: dict[str, Tableau] = {t.name: t for t in (EULER, MIDPOINT, HEUN, RALSTON, HEUN3, RK4, RK4_38)}
"""Tableaux of the fixed-step solvers, by the names a config uses."""
