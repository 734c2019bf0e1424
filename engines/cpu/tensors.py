"""The tensors of TensorRT-LLM 1.2.1's `tensorrt_llm` model, and what this engine does with each.

Data only: config.pbtxt declares exactly these, a test holds both together.
"""

from __future__ import annotations

from types import MappingProxyType

# Input tensors the engine acts on: name -> (Triton data type, dims). Dims of None are scalars
# on the wire: [batch, 1], declared as dims [1] with an empty reshape.
Declaration = tuple[str, tuple[int, ...] | None]

INPUTS: MappingProxyType[str, Declaration] = MappingProxyType(
    {
        "input_ids": ("TYPE_INT32", (-1,)),
        "input_lengths": ("TYPE_INT32", None),
        "request_output_len": ("TYPE_INT32", None),
        "end_id": ("TYPE_INT32", None),
        "pad_id": ("TYPE_INT32", None),
        "num_return_sequences": ("TYPE_INT32", None),
        "beam_width": ("TYPE_INT32", None),
        "streaming": ("TYPE_BOOL", None),
        "stop": ("TYPE_BOOL", None),
        "temperature": ("TYPE_FP32", None),
        "runtime_top_k": ("TYPE_INT32", None),
        "runtime_top_p": ("TYPE_FP32", None),
        "seed": ("TYPE_UINT64", None),
        "min_tokens": ("TYPE_INT32", None),
        "repetition_penalty": ("TYPE_FP32", None),
        "presence_penalty": ("TYPE_FP32", None),
        "frequency_penalty": ("TYPE_FP32", None),
        "stop_words_list": ("TYPE_INT32", (2, -1)),
        "return_log_probs": ("TYPE_BOOL", None),
        "return_context_logits": ("TYPE_BOOL", None),
        "return_generation_logits": ("TYPE_BOOL", None),
        "return_perf_metrics": ("TYPE_BOOL", None),
        "return_num_input_tokens": ("TYPE_BOOL", None),
        "return_num_output_tokens": ("TYPE_BOOL", None),
        "exclude_input_in_output": ("TYPE_BOOL", None),
        "guided_decoding_guide_type": ("TYPE_STRING", (1,)),
        "guided_decoding_guide": ("TYPE_STRING", (1,)),
    }
)

# Input tensors with no equivalent on the CPU: declared, so that a client learns why in the
# engine's own words, and always refused.
REFUSED_INPUTS: MappingProxyType[str, Declaration] = MappingProxyType(
    {
        "runtime_top_p_min": ("TYPE_FP32", None),
        "runtime_top_p_decay": ("TYPE_FP32", None),
        "runtime_top_p_reset_ids": ("TYPE_INT32", None),
        "len_penalty": ("TYPE_FP32", None),
        "early_stopping": ("TYPE_BOOL", None),
        "beam_search_diversity_rate": ("TYPE_FP32", None),
        "bad_words_list": ("TYPE_INT32", (2, -1)),
        "embedding_bias": ("TYPE_FP32", (-1,)),
        "retention_token_range_starts": ("TYPE_INT32", (-1,)),
        "retention_token_range_ends": ("TYPE_INT32", (-1,)),
        "retention_token_range_priorities": ("TYPE_INT32", (-1,)),
        "retention_token_range_durations_ms": ("TYPE_INT32", (-1,)),
        "retention_decode_priority": ("TYPE_INT32", (1,)),
        "retention_decode_duration_ms": ("TYPE_INT32", (1,)),
        "draft_input_ids": ("TYPE_INT32", (-1,)),
        "draft_logits": ("TYPE_FP32", (-1, -1)),
        "draft_acceptance_threshold": ("TYPE_FP32", None),
        "lookahead_window_size": ("TYPE_INT32", (1,)),
        "lookahead_ngram_size": ("TYPE_INT32", (1,)),
        "lookahead_verification_set_size": ("TYPE_INT32", (1,)),
        "lora_task_id": ("TYPE_UINT64", None),
        "lora_weights": ("TYPE_FP16", (-1, -1)),
        "lora_config": ("TYPE_INT32", (-1, 3)),
        "prompt_embedding_table": ("TYPE_FP16", (-1, -1)),
        "prompt_table_extra_ids": ("TYPE_UINT64", (-1,)),
        "prompt_vocab_size": ("TYPE_INT32", None),
        "mrope_rotary_cos_sin": ("TYPE_FP32", (-1,)),
        "mrope_position_deltas": ("TYPE_INT64", (1,)),
        "encoder_input_features": ("TYPE_FP16", (-1, -1)),
        "encoder_output_lengths": ("TYPE_INT32", None),
        "decoder_input_ids": ("TYPE_INT32", (-1,)),
        "decoder_input_lengths": ("TYPE_INT32", None),
        "cross_attention_mask": ("TYPE_BOOL", (-1, -1)),
        "skip_cross_attn_blocks": ("TYPE_BOOL", (1,)),
        "context_phase_params": ("TYPE_UINT8", (-1,)),
    }
)

# Outputs, as declared. Logits, indices, drafts and context phase are never sent: this engine has
# nothing true to say of them.
OUTPUTS: MappingProxyType[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "output_ids": ("TYPE_INT32", (-1, -1)),
        "sequence_length": ("TYPE_INT32", (-1,)),
        "cum_log_probs": ("TYPE_FP32", (-1,)),
        "output_log_probs": ("TYPE_FP32", (-1, -1)),
        "context_logits": ("TYPE_FP32", (-1, -1)),
        "generation_logits": ("TYPE_FP32", (-1, -1, -1)),
        "batch_index": ("TYPE_INT32", (1,)),
        "sequence_index": ("TYPE_INT32", (1,)),
        "kv_cache_alloc_new_blocks": ("TYPE_INT32", (1,)),
        "kv_cache_reused_blocks": ("TYPE_INT32", (1,)),
        "kv_cache_alloc_total_blocks": ("TYPE_INT32", (1,)),
        "arrival_time_ns": ("TYPE_INT64", (1,)),
        "first_scheduled_time_ns": ("TYPE_INT64", (1,)),
        "first_token_time_ns": ("TYPE_INT64", (1,)),
        "last_token_time_ns": ("TYPE_INT64", (1,)),
        "acceptance_rate": ("TYPE_FP32", (1,)),
        "total_accepted_draft_tokens": ("TYPE_INT32", (1,)),
        "total_draft_tokens": ("TYPE_INT32", (1,)),
        "num_input_tokens": ("TYPE_INT32", (1,)),
        "num_output_tokens": ("TYPE_INT32", (1,)),
        "context_phase_params": ("TYPE_UINT8", (-1,)),
    }
)
REQUIRED_OUTPUTS = ("output_ids", "sequence_length")
