"""The scaler: keeps each pool of replicas at its size and tells routers where they are."""
