"""The contract of the scaler, by version."""
