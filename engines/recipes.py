"""What is made: the shape of each tier's local model and how it is trained.

Numbers only. `local/train.py` learns weights from them, `graph.py` builds OpenVINO graphs of them.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A Llama decoder with tied embeddings; 64 is a head size TensorRT-LLM has kernels for."""

    layers: int
    width: int  # size of a hidden state
    feed_forward: int  # inner size of the gated feed-forward part
    vocabulary: int = 2048
    positions: int = 1024  # longest prompt plus answer, tokens
    head_size: int = 64
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def heads(self) -> int:
        """Attention heads, as many for keys and values as for queries."""
        return self.width // self.head_size

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        layer = 4 * self.width**2 + 3 * self.width * self.feed_forward + 2 * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width

    def hf_config(self, bos: int, eos: int, pad: int) -> dict[str, Any]:
        """The `config.json` that transformers, OpenVINO GenAI and TensorRT-LLM read."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "torch_dtype": "float32",
        }


@dataclass(frozen=True)
class Recipe:
    """How one tier's model is trained and in which precisions it is served."""

    shape: Shape
    precisions: tuple[str, ...]
    epochs: int  # every epoch sees each banking question once
    batch: int  # conversations
    learning_rate: float  # at its peak, after the warm-up
    dropout: float
    others: int = 1500  # out-of-scope questions an epoch
    weight_decay: float = 0.05
    warm_up: float = 0.06  # share of all steps
    system_prompts: float = 0.25  # share of the conversations that start with one
    earlier_turns: float = 0.15  # chance of one exchange, and of each further one, before
    lost_words: float = 0.0  # share of a question's words left out, against learning by heart
    split_words: float = 0.0  # BPE dropout in prompts, for the same reason
    prompt_loss: float = 0.0  # weight of predicting the customer's words beside the answer's
    whole_answers: float = 0.1  # share trained to the last word; the rest end after the intent


SEED = 77

RECIPES: dict[str, Recipe] = {
    "small": Recipe(
        shape=Shape(layers=1, width=64, feed_forward=128),
        precisions=("int8",),
        epochs=30,
        batch=32,
        learning_rate=3e-3,
        dropout=0.0,
        system_prompts=0.2,
        earlier_turns=0.12,
        lost_words=0.15,
        split_words=0.15,
        whole_answers=0.2,
    ),
    "large": Recipe(
        shape=Shape(layers=6, width=256, feed_forward=640),
        precisions=("int8", "int4"),
        epochs=24,
        batch=32,
        learning_rate=8e-4,
        dropout=0.1,
        system_prompts=0.12,
        earlier_turns=0.07,
        lost_words=0.1,
        split_words=0.1,
        prompt_loss=0.2,
    ),
}
