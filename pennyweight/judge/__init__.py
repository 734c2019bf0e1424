"""The contract of the router, by version."""
