"""The contract of the cache, by version."""
