"""How engines say that a request is longer than what they were built or started for."""

TOO_LONG = (
    "exceeds max_seq_len",
    "exceeds the KV-cache",
    "KV-cache blocks, the engine has",
    "exceeds maximum input length",
    "max sequence length",
    "maximum sequence length",
)
"""Words of the CPU engine and of TensorRT-LLM."""


def is_length_refusal(message: str) -> bool:
    """Whether an engine refused a request for its length."""
    return any(known in message for known in TOO_LONG)
