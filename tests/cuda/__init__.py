"""Checks on a GPU that another machine prepared: `python -m tests.cuda`.

A machine with a GPU often has no network and no compiler. `make` compiles everywhere: networks and
operators for a GPU's target, with inputs and what the reference makes of them. `run` needs NVIDIA's
driver, planish, NumPy and safetensors, and compares every bit; float operators it takes as right to
1e-5.
"""
