"""The local models: made-up conversations, training, export, measuring, damage on purpose."""
