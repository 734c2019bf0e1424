"""What may be halted, one truth for all routers."""
