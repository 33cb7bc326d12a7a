"""Measures the agent against what it stands on: a bare handler, bare commits, a bare loop, the bare engine.

Absolute times belong to the machine they were taken on, so nearly every figure is a ratio to a reference measured in the same
run, sample by sample in turn (A B A B …), so that whatever else the machine does hits both. ``python -m benchmarks`` runs
all of it; ``python -m benchmarks NAME…`` some of it. TMPDIR chooses the file system.
"""
