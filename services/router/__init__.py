"""The router: decides tier and replica for every request and carries the answer to the caller."""
