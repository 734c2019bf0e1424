"""Scaling files tried on load, in a process of its own: what `scaler plan` and `simulate` ask.

Each pool is tried by itself: budgets and money that pools share, and the mix with spot capacity,
are left out. What serves is what was measured of the pool's replicas, not what the policy takes
them to be.
"""
