# mypy: disable-error-code="import-not-found, misc"
"""The local models in torch: a small Llama whose parameters carry their Hugging Face names.

torch stays out of the services' environment, so type checks there see it as untyped.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.recipes import Shape


class Attention(nn.Module):
    """Causal self-attention with rotary positions (Hugging Face's half-split layout)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.head_size = shape.heads, shape.head_size
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mix what each token may see: x is [batch, tokens, width]."""
        batch, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, self.head_size).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            first, second = y.chunk(2, dim=-1)
            return y * cosine + torch.cat((-second, first), dim=-1) * sine

        query, key, value = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        cosine, sine = cosine.to(query.dtype), sine.to(query.dtype)
        # Written out: torch's fused attention is slower on a CPU for sequences this short.
        ahead = torch.full((length, length), -torch.inf).triu(1)
        scores = (rotate(query) @ rotate(key).transpose(-1, -2)).float() / self.head_size**0.5
        attended = (scores + ahead).softmax(dim=-1).to(value.dtype) @ value
        merged: Tensor = self.o_proj(attended.transpose(1, 2).reshape(batch, length, width))
        return merged


class FeedForward(nn.Module):
    """The gated feed-forward part (SwiGLU)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself."""
        down: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.mlp = FeedForward(shape)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Both parts, each added to its normalised input."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cosine, sine))
        out: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return out


class Decoder(nn.Module):
    """Embeddings, layers and the final norm: `model.*` in a Hugging Face checkpoint."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(dropout)


class Llama(nn.Module):
    """The whole model; the output layer is the embedding, transposed."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.model = Decoder(shape, dropout)
        exponents = torch.arange(0, shape.head_size, 2) / shape.head_size
        angles = torch.outer(torch.arange(shape.positions).float(), shape.rope_theta**-exponents)
        doubled = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cosine", doubled.cos(), persistent=False)
        self.register_buffer("sine", doubled.sin(), persistent=False)
        deviation = 0.32 / shape.width**0.5
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=deviation)

    def forward(self, ids: Tensor) -> Tensor:
        """Hidden states after the final norm, for ids [batch, tokens] padded on the right."""
        length = ids.shape[1]
        cosine, sine = self.get_buffer("cosine")[:length], self.get_buffer("sine")[:length]
        x = self.model.dropout(self.model.embed_tokens(ids))
        for layer in self.model.layers:
            x = layer(x, cosine, sine)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for the hidden states that need them."""
        return functional.linear(hidden, self.model.embed_tokens.weight)
