"""Which replicas there are, and who watches them."""
