"""What a request leaves behind."""
