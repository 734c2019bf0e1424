"""Scaling files tried on load, in a process of its own: what `scaler plan` and `simulate` ask.

A plan tries all pools of a file together, with the budgets and the money that they share and with
spot capacity; `simulate` tries one pool by itself. What serves is what was measured of the pool's
replicas, not what the policy takes them to be.
"""
