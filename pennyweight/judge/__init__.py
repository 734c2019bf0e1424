"""The contract of the judge, by version."""
