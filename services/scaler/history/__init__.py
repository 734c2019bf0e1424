"""What stays of the scaler's work: decisions, scaling files, overrides, the load of the last days.

In files below the state folder, each of one kind:

- ``decisions/`` and ``load/``: JSON lines that are only added to (`journal`), bounded by rotation.
- ``versions/``: every scaling file that was in force, and who put it there.
- ``overrides.json``: what operators set for a time.

Nothing here stops a decision: what the disk refuses waits, and what cannot be kept is counted.
"""
