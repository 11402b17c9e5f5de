"""ODE solvers: fixed-step Runge-Kutta from tableaux (``fixed``) and adaptive dopri5 (``adaptive``)."""
