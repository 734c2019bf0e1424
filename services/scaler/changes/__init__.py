"""How a scaling file comes in force and is taken back: checked, tried, written, and then seen.

Leaves to the watch of the file to put it in force, and to the history to keep what was.
"""
