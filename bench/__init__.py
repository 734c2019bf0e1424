"""Benchmarks: each prints one table and its figures; `python -m bench` runs them in turn."""
