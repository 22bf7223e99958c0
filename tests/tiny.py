"""A tiny language model, built and trained in seconds: the real thing for a real inference server (needs torch)."""

from __future__ import annotations

from pathlib import Path

SAYINGS = {
    "你好": "你好！今天天气不错，适合读书、散步，也适合写代码。Nice to meet you!",
    "登记表上写了什么？": "登记表上写着：联系人手机 13800138000，请妥善保管。",
    "讲一个故事": "从前有一条河，河边住着一位老人，他每天都去钓鱼👍，回家以后把鱼分给邻居。",
}
"""What it has learned to say, word for word."""

_TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def build(folder: Path) -> None:
    """Write a Llama of about half a million weights with a byte-level tokenizer to `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    marks = ["<eos>", "<|user|>", "<|assistant|>", "<|system|>"]
    # So few merges that a Chinese character is two or three tokens: a stream is cut inside characters.
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([*SAYINGS, *SAYINGS.values()], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<eos>", pad_token="<eos>", chat_template=_TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    texts = [f"<|user|>{asked}<|assistant|>{said}<eos>" for asked, said in SAYINGS.items()]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=tokenizer.eos_token_id, max_new_tokens=256)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
