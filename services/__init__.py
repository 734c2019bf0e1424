"""The three services; each runs from the source tree as ``python -m services.<name>``."""
