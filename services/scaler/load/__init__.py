"""What routers report of their load."""
