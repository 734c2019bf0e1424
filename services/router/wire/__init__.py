"""Messages read into the domain, and the domain written as messages."""
