"""Solvers of ODEs and SDEs: fixed-step Runge-Kutta, DDIM, adaptive dopri5 and stochastic samplers, with their time grids."""
