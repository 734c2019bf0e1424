"""What the router decides, as plain functions and frozen dataclasses.

Time, randomness and measurements are arguments; nothing here does I/O.
"""
