"""The cache: answers given before, and leases that make identical requests wait for one answer."""
