"""Who may enter, and what of the router a tenant may take up at once."""
