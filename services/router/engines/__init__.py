"""How models are spoken to: text and tokens, tensors, streams."""
