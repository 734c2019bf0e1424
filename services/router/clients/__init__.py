"""Our own services, as the router speaks to them."""
