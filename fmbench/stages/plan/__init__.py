"""What a config costs before anything runs: parameters, operations, memory, disk, and hours by hardware.

:mod:`~fmbench.stages.plan.estimate` puts the parts together. Operations and bytes are counted for one sample through the real
network (:mod:`fmbench.networks.counting`) and multiplied by what the config asks for.
"""
