"""A language model small enough to train in a test: random weights, a real byte-level tokenizer, a chat template."""

from __future__ import annotations

from pathlib import Path

# SmolLM2's form: ChatML, a default system prompt, and one token for both end of turn and padding.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CORPUS = [
    "You are a helpful assistant. system user assistant",
    "Please tell me about the weather today. Thank you, I am glad to help you with that.",
    "What is the answer? The answer is short and polite. How do I write a letter to my neighbour?",
    "No idea, go away, stop asking me things, that is a stupid question and I will not answer it at all.",
]


def build_tiny_model(directory: Path, *, seed: int = 0, chat_template: str = CHAT_TEMPLATE) -> Path:
    """Write a two-layer Llama with about 100,000 weights as an ordinary model directory, and give the directory.

    It trains with every method, and serves: its generation_config samples and stops at the end of a turn.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        padding_side="left",
        model_max_length=512,
    )
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.95, bos_token_id=1, eos_token_id=2, pad_token_id=2
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
