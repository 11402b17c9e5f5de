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
_DOPRI8 = (
    *(14005451 / 335480064, 0.0, 0.0, 0.0, 0.0, -59238493 / 1068277825, 181606767 / 758867731, 561292985 / 797845732),
    *(-1041891430 / 1371343529, 760417239 / 1151165299, 118820643 / 751138087, -528747749 / 2220607170, 1 / 4),
)
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

BOSH3 = Tableau(
    "bosh3",
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    order=3,
    b_low=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
)
"""Bogacki & Shampine 1989."""
ADAPTIVE_HEUN = Tableau(
    "adaptive_heun",
    a=((), (1.0,), (1 / 2, 1 / 2)),
    b=(1 / 2, 1 / 2, 0.0),
    c=(0.0, 1.0, 1.0),
    order=2,
    b_low=(1.0, 0.0, 0.0),
)
"""Heun's method with Euler's as the embedded one. Its third stage is the first of the next step. torchdiffeq takes the slope at
the proposal for that. This costs one evaluation less and is another method."""
TSIT5 = Tableau(
    "tsit5",
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    b=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    order=5,
    b_low=(
        *(0.09824077787029123, 0.010816434459657, 0.4720087724042376, 1.5237195812770048),
        *(-3.872426680888636, 2.782792630028961, -1 / 66),
    ),
)
"""Tsitouras 2011."""
DOPRI8 = Tableau(
    "dopri8",
    a=(
        (),
        (1 / 18,),
        (1 / 48, 1 / 16),
        (1 / 32, 0.0, 3 / 32),
        (5 / 16, 0.0, -75 / 64, 75 / 64),
        (3 / 80, 0.0, 0.0, 3 / 16, 3 / 20),
        (29443841 / 614563906, 0.0, 0.0, 77736538 / 692538347, -28693883 / 1125000000, 23124283 / 1800000000),
        (
            *(16016141 / 946692911, 0.0, 0.0, 61564180 / 158732637, 22789713 / 633445777),
            *(545815736 / 2771057229, -180193667 / 1043307555),
        ),
        (
            *(39632708 / 573591083, 0.0, 0.0, -433636366 / 683701615, -421739975 / 2616292301),
            *(100302831 / 723423059, 790204164 / 839813087, 800635310 / 3783071287),
        ),
        (
            *(246121993 / 1340847787, 0.0, 0.0, -37695042795 / 15268766246, -309121744 / 1061227803),
            *(-12992083 / 490766935, 6005943493 / 2108947869, 393006217 / 1396673457, 123872331 / 1001029789),
        ),
        (
            *(-1028468189 / 846180014, 0.0, 0.0, 8478235783 / 508512852, 1311729495 / 1432422823),
            *(-10304129995 / 1701304382, -48777925059 / 3047939560, 15336726248 / 1032824649),
            *(-45442868181 / 3398467696, 3065993473 / 597172653),
        ),
        (
            *(185892177 / 718116043, 0.0, 0.0, -3185094517 / 667107341, -477755414 / 1098053517),
            *(-703635378 / 230739211, 5731566787 / 1027545527, 5232866602 / 850066563),
            *(-4093664535 / 808688257, 3962137247 / 1805957418, 65686358 / 487910083),
        ),
        (
            *(403863854 / 491063109, 0.0, 0.0, -5068492393 / 434740067, -411421997 / 543043805),
            *(652783627 / 914296604, 11173962825 / 925320556, -13158990841 / 6184727034),
            *(3936647629 / 1978049680, -160528059 / 685178525, 248638103 / 1413531060, 0.0),
        ),
        _DOPRI8,
    ),
    b=(*_DOPRI8, 0.0),
    c=(
        *(0.0, 1 / 18, 1 / 12, 1 / 8, 5 / 16, 3 / 8, 59 / 400, 93 / 200, 5490023248 / 9719169821, 13 / 20),
        *(1201146811 / 1299019798, 1.0, 1.0, 1.0),
    ),
    order=8,
    b_low=(
        *(13451932 / 455176623, 0.0, 0.0, 0.0, 0.0, -808719846 / 976000145, 1757004468 / 5645159321),
        *(656045339 / 265891186, -3867574721 / 1518517206, 465885868 / 322736535, 53011238 / 667516719, 2 / 45, 0.0, 0.0),
    ),
)
"""Prince & Dormand 1981, RK8(7)13M, in their rational approximations, with the slope at the end as a last stage."""

ADAPTIVE: dict[str, Tableau] = {t.name: t for t in (DOPRI5, BOSH3, TSIT5, DOPRI8, ADAPTIVE_HEUN)}
"""Embedded pairs of the adaptive solvers, by the names a config uses. The last stage of each is the first of the next step."""
FIXED: dict[str, Tableau] = {t.name: t for t in (EULER, MIDPOINT, HEUN, RALSTON, HEUN3, RK4, RK4_38)}
"""Tableaux of the fixed-step solvers, by the names a config uses."""
