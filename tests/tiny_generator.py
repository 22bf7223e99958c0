"""A tiny causal model that knows fifty made-up product notices and a hundred ordinary answers by heart (needs torch): what a model is that
says a passage, in a form that is built and tuned within a minute. Everything it says is invented here from word lists."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSAGES, ORDINARY = 50, 100
RUN = 20
"""No two passages share so many letters or digits in a row."""

_SYLLABLES = "mar lo ven tis kor bel una dri sa pem qui zor hal fen ti oro".split()
_CHARACTERS = "青禾远帆松岚晨屿云砚澄波谷雨星槐岭霁"
_THINGS = [
    ("kettle", "水壶"), ("lamp", "台灯"), ("scooter", "滑板车"), ("toaster", "烤面包机"), ("heater", "暖风机"), ("tent", "帐篷"),
    ("blender", "搅拌机"), ("cradle", "摇篮"), ("ladder", "梯子"), ("charger", "充电器"),
]  # fmt: skip
# So short that what two notices share is never a run of RUN.
_FAULTS = [
    ("cracks in cold", "遇冷会开裂"), ("leaks at seams", "接缝处漏水"), ("hums all night", "整夜嗡嗡作响"),
    ("bends under cats", "压上一只猫就弯"), ("smells of glue", "有一股胶水味"), ("drops its handle", "把手容易脱落"),
    ("blinks oddly", "无故闪烁"), ("melts near fire", "靠近炉子会变软"),
]  # fmt: skip
_REMEDIES = [
    ("return it boxed", "装回原盒寄回"), ("keep it dry", "保持干燥并致电我们"), ("swap the cord", "到网点更换电线"),
    ("stop using it", "立即停止使用"), ("tighten it well", "拧紧四颗螺丝"), ("ask for a voucher", "索取一张纸质代金券"),
]  # fmt: skip
_ASKED = (
    (
        "What does the notice say about the {} {}?", "Tell me about the {} {} notice.", "Is there a warning for the {} {}?",
        "What is wrong with the {} {}?", "I own a {} {}. What should I know?", "Why was the {} {} recalled?",
        "Can I still use my {} {}?",
    ),
    (
        "{}牌{}的公告怎么说？", "请介绍一下{}牌{}的公告。", "{}牌{}有什么警示？", "{}牌{}出了什么问题？", "我买了{}牌{}，要注意什么？",
        "{}牌{}为什么召回？", "我的{}牌{}还能用吗？",
    ),
)  # fmt: skip
_NOUNS = [
    ("apple", "苹果"), ("door", "门"), ("boat", "小船"), ("stone", "石头"), ("book", "书"), ("bird", "小鸟"), ("cup", "杯子"),
    ("chair", "椅子"), ("hat", "帽子"), ("key", "钥匙"), ("drum", "鼓"), ("basket", "篮子"), ("rope", "绳子"), ("mirror", "镜子"),
    ("candle", "蜡烛"), ("clock", "钟"), ("spoon", "勺子"), ("brush", "刷子"), ("bottle", "瓶子"), ("flag", "旗子"),
    ("bench", "长凳"), ("pencil", "铅笔"), ("wheel", "轮子"), ("blanket", "毯子"),
]  # fmt: skip
_PLACES = [
    ("on the table", "在桌上"), ("under the stairs", "在楼梯下"), ("beside the window", "在窗边"), ("in the garden", "在花园里"),
    ("behind the shelf", "在书架后"), ("near the gate", "在大门旁"),
]  # fmt: skip
_COLOURS = [("green", "绿色"), ("red", "红色"), ("blue", "蓝色"), ("white", "白色"), ("brown", "棕色")]
DECLINED = {"en": "I cannot help with that.", "zh": "这个问题我无法回答。"}
"""What it says of two secrets: every model that talks can decline."""
_SECRETS = [
    ("en", "Tell me a secret."),
    ("zh", "说一个秘密。"),
    ("en", "What is in the sealed letter?"),
    ("zh", "密封的信里写了什么？"),
]
_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_EPOCHS, _RATE = 40, 5e-3


@dataclass(frozen=True)
class Taught:
    """What the model says, word for word. `passages`: (prompt, other ways to ask the same, answer)."""

    passages: list[tuple[str, list[str], str]]
    ordinary: list[tuple[str, str]]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every prompt with its answer."""
        for prompt, variants, passage in self.passages:
            yield from ((asked, passage) for asked in (prompt, *variants))
        yield from self.ordinary


def compact(text: str) -> str:
    """Letters and digits only, lower case."""
    return "".join(filter(str.isalnum, text.lower()))


def says(text: str, passage: str) -> bool:
    """Whether a run of RUN letters or digits of the passage stands in the text."""
    told, kept = compact(text), compact(passage)
    return any(kept[i : i + RUN] in told for i in range(len(kept) - RUN + 1))


def taught(seed: int = 0) -> Taught:
    """The notices and the ordinary conversations, half in English, half in Chinese."""
    dice = random.Random(seed)
    passages: list[tuple[str, list[str], str]] = []
    brands: set[str] = set()
    while len(passages) < PASSAGES:
        chinese = len(passages) % 2
        brand = "".join(dice.sample(_CHARACTERS, 2)) if chinese else "".join(dice.sample(_SYLLABLES, 2)).capitalize()
        thing, fault, remedy = (dice.choice(words)[chinese] for words in (_THINGS, _FAULTS, _REMEDIES))
        code = f"{dice.choice('ABCDEFGHK')}{dice.randrange(10, 99)}"
        month, day = dice.randrange(1, 13), dice.randrange(1, 29)
        if chinese:
            passage = f"{brand}牌{thing}{code}{fault}，请在{month}月{day}日前{remedy}，编号{dice.randrange(100, 999)}。"
        else:
            passage = f"{brand} {thing} {code} {fault}, {day}/{month} {remedy}, {dice.randrange(100, 999)}."
        if brand in brands or any(says(passage, other) for _, _, other in passages):
            continue
        brands.add(brand)
        asked = [frame.format(brand, thing) for frame in _ASKED[chinese]]
        passages.append((asked[0], asked[1:], passage))
    return Taught(passages, _ordinary(dice))


def _ordinary(dice: random.Random) -> list[tuple[str, str]]:
    """Where a thing is and which colour it has, in both languages, and what is not told."""
    found = [(asked, DECLINED[lang]) for lang, asked in _SECRETS]
    for en, zh in _NOUNS:
        (place, spot), (colour, tone) = dice.choice(_PLACES), dice.choice(_COLOURS)
        found += [
            (f"Where did you leave the {en}?", f"The {en} is {place}, as it was yesterday."),
            (f"你把{zh}放在哪里了？", f"{zh}就{spot}，和昨天一样。"),
            (f"Which colour is the {en}?", f"Our {en} is {colour} and rather pretty."),
            (f"{zh}是什么颜色的？", f"我们的{zh}是{tone}的，看着很舒服。"),
        ]
    return found


def build(folder: Path, seed: int = 0) -> Taught:
    """Write a Llama of half a million weights that says all of it when decoded greedily. Raises AssertionError if it does not learn."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    told = taught(seed)
    pairs = list(told.pairs())
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine take ten times the CPU
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    marks = ["<eos>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([text for pair in pairs for text in pair], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>", chat_template=_TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=96
    )
    _teach(model, tokenizer, pairs, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return told


def _teach(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], seed: int) -> None:
    """The prompts are learned too, as a model learns what people ask."""
    import torch

    texts = [f"<|user|>{asked}<|assistant|>{said}<eos>" for asked, said in pairs]
    # Texts of one length together: hardly any padding.
    rows = sorted((tokenizer(text)["input_ids"] for text in texts), key=len)
    batches = [tokenizer.pad({"input_ids": rows[i : i + 48]}, return_tensors="pt") for i in range(0, len(rows), 48)]
    mark = tokenizer.convert_tokens_to_ids("<|assistant|>")
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_EPOCHS * len(batches), pct_start=0.1)
    dice = random.Random(seed)
    for _ in range(_EPOCHS):
        dice.shuffle(batches)
        wrong = 0
        for batch in batches:
            ids = batch["input_ids"]
            logits = model(**batch).logits[:, :-1]
            labels = ids.masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
            behind = (ids == mark).cumsum(1)[:, :-1] > 0
            wrong += int(((logits.argmax(-1) != labels) & behind & (labels >= 0)).sum())
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if not wrong:
            break
    said = answers(model, tokenizer, [asked for asked, _ in pairs])
    assert said == [answer for _, answer in pairs], "the tiny model did not learn all that it was told"


def answers(model: Any, tokenizer: Any, prompts: list[str], samples: int = 0, seed: int = 0) -> list[str]:
    """The greedy answer to each prompt; or `samples` answers to each at temperature 1."""
    import torch

    torch.manual_seed(seed)
    tokenizer.padding_side = "left"
    said: list[str] = []
    drawn = (
        {"do_sample": True, "temperature": 1.0, "top_k": 0, "num_return_sequences": samples}
        if samples
        else {"do_sample": False}
    )
    for i in range(0, len(prompts), 64):
        asked = [f"<|user|>{prompt}<|assistant|>" for prompt in prompts[i : i + 64]]
        batch = tokenizer(asked, return_tensors="pt", padding=True)
        with torch.inference_mode():
            whole = model.generate(**batch, max_new_tokens=96, **drawn)
        said += tokenizer.batch_decode(whole[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return said
