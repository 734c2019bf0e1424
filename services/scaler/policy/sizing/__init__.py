"""How many replicas a pool should have, and why: decided from what was measured, without acting."""
