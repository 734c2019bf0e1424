"""Which replicas there are and what runs on each."""
