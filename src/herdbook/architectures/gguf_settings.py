"""The hyperparameters that llama.cpp computes with: by their keys in a GGUF's header, after the architecture's name, those in config.json."""

HYPERPARAMETERS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
WITH_EXPERTS = {**HYPERPARAMETERS, "expert_used_count": "num_experts_per_tok"}
