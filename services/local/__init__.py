"""The whole stack on one machine: cache, scaler, router, and the replicas the scaler starts."""
