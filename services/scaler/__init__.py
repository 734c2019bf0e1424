"""The scaler: keeps each pool of replicas at its size and lets routers know where they are."""
