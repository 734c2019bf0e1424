"""What `scaling.yaml` may say of pools, and what must hold between them."""
