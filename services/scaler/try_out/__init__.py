"""Scaling files tried on load, in a process of its own: what `scaler plan` and `simulate` ask.

A plan tries all pools of a file together, with the budgets and the money that they share and with
spot capacity; `simulate` tries one pool by itself. What serves is the same under every file: what
was measured of the pool's replicas, unless who asks, or the file in force, names something else.
"""
