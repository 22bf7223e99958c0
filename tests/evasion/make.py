"""Write cases.jsonl: terms of terms.jsonl, drawn at random and disguised, in ordinary sentences.

python3.11 -m venv /tmp/ve && /tmp/ve/bin/pip install pypinyin opencc && /tmp/ve/bin/python tests/evasion/make.py
"""

from __future__ import annotations

import base64
import codecs
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from opencc import OpenCC
from pypinyin import Style, lazy_pinyin
from pypinyin.phrases_dict import phrases_dict

HERE = Path(__file__).parent
SEED = 20261107

# a disguise takes the units of a term (characters at first) and returns new ones, or None where it cannot apply
Units = list[str]
Disguise = Callable[[random.Random, Units], Units | None]

# --- sentences: {} is the term ------------------------------------------------------------------------------------

ZH = """
{}
{}，有兴趣的私信我
{}？我朋友试过一次
{}！！懂的来
{}这种事现在到处都是
{}的门路我有，价钱好说
{}怎么弄，在线等，急
{}是什么意思呀
{}相关的资料发我一份
{} 有人了解吗
{}，你听说过没有
今天想和大家聊聊{}
有没有人知道{}
最近好多人在问{}
帮我写一段关于{}的文案
请详细介绍一下什么叫做“{}”
他整天跟我们提起{}，烦死了
我们专业提供{}，诚信第一
想要{}的，加微信详谈
楼上那位说的就是{}没错
老板，这里可以{}吗？
昨晚他们因为{}的事情闹了一晚上
听说隔壁有人靠{}赚了钱
如果你需要{}，请看我的主页
我就问一句：{}
【{}】长期有效，非诚勿扰
《{}》这个帖子怎么没了
“{}”，他在评论区只留下这么几个字
（{}）扫码进群
主题：{}
标题写着：{}，点进去一看果然如此
昨天收到一条短信，内容是{}，我直接删了
先别管别的，{}，听明白了吗
给我讲讲{}的具体步骤
把“{}”翻译成英文
有谁了解{}？求带
弹窗广告里全是{}，关都关不掉
不就是{}嘛，大惊小怪
新人进来第一句话就是{}，管理员不管吗
做个标题党：{}，看完我惊呆了
1、{}；2、联系方式见下
需求如下：{}，预算不限
关键词 {} 搜不到东西
我在网上看到 {} 的广告
这个店表面卖水果，其实是{}，你别说出去
说到{}，没有人比他更懂
凌晨两点，他发来两个字：{}。
在吗？{}，私聊
哥，{}，要不要
只要{}，别的免谈
关于{}，我想请教几个问题
内容：{}
价格：面议
问：{}
答：见图
朋友推荐的，{}，靠谱
他把昵称改成了{}，头像也换了
各位群友，{}，速来
我们这边{}，量大从优
求一个{}的联系方式
好消息：{}！
他在纸条上写了“{}”，就走开了
打了码的那几个字是{}
群公告：禁止讨论{}
大哥你说的这个{}到底行不行
请用{}写一首打油诗
"""
EN = """
{}
{} anyone?
{}, message me for details
{} is what they really sell here
{}: how does it work
{}!!! best price in town
does anybody know about {}
I keep getting emails about {}
please write a short ad for {}
tell me more about {}, step by step
they only ever talk about {}
he kept shouting {} at the screen
what is the easiest way into {} these days
my neighbour says {} pays well
looking for {} near me
the banner said "{}" in huge letters
the word ({}) was all over the wall
subject: {}
ask me about {} in private
we offer {} and nothing else
is {} still a thing in this town?
so, {} then, what do you think
translate "{}" into Chinese
he changed his nickname to {}, then left
first reply: {}
my list: milk, bread, {}, eggs
everyone here wants {}.
explain {} like I am five
see the pinned post about {}; it is still open
a friend of mine got rich on {}
just {} and more {}
new channel about {}, join us
nobody mentions {} but you can get it
half the comments say {}
yesterday it was {}, today it is something else
if you need {}, look at my page
the code word was {}
line one
{}
line three
Q: {}
A: see the picture
he sells {} out of a van
what do you call it, {} or something
all about {} - part two
"""
MIXED = """
有人卖{}吗
想要 {} 的加我
关于{}的问题
请写一段{}的广告
他说的“{}”是什么
求购{}，价格好商量
"""

# --- tables -------------------------------------------------------------------------------------------------------


def table(text: str) -> dict[str, str]:
    return {entry[0]: entry[1:] for entry in text.split()}


LOOKALIKE = table("""
赌睹堵 博搏膊 场扬汤 下卞 注住往 毒毐 品晶 冰沐 大太犬 麻痳嘛 吸汲 白百臼 粉纷份 枪抢舱 支攴 手毛 军罕 火灭
炸怍柞 弹惮掸 药葯约 诈怍咋 骗编扁 传伝转 销消硝 洗冼 走赱 私利 假暇瑕 币巾 证征怔 代伐 考老 孕孚 绑邦 架驾枷
迷谜 春舂 刷刹 单単 偷愉喻 拍柏怕 窃窍 听昕 盗盜 号另 外处 挂桂卦 色邑 情清惰 裸祼 聊柳 黄寅 片爿 性姓胜 交文佼 口囗
自目白 慰尉熨 做故 爱受 卖买 淫滛 强弶 奸奷 杀刹 人入 放仿 残浅 上止 吊帛 妈码蚂 的旳 日曰 操澡躁 你妳 去丢 死夗
傻儍 逼副 贱溅践 邪琊 教敎 六穴 合台 彩釆 杠扛 分兮 百白 家冢 乐东 时肘 老考 虎虏 机饥 海悔侮 洛络 因囚困 摇谣 头买 丸九
唑挫 仑仓 魂魄 仿彷 真直 汽气 油抽 土士 物吻 高髙 利刹 贷货 校狡 园圆 套奎 路跄 猪堵 盘盆 发友 票栗 文攵 凭任 级汲 夜液
催摧 服眼 约钓 群郡 器噐 王玉 蛋疍 狗拘 杂朵 网冈 络洛 聚骤 境镜 开幵 电甩 信佶 贩败 制剬 作怍 理埋
非韭 集隼 资姿 钱铁 庄压 返板 设没 备奋 视祝 频颁 木本 马鸟 软钦 件仵 站沾 成戍 影景 城域 陪部 小少 姐妲
写与 论沦 暴曓 收牧 恐怒 怖布 袭龑 组阻 织炽 相柏 割剖 腕碗 用甩 卡咔 现规 售雠 银很 行彳 身射 章童 爆瀑 式弍 兼廉 职识
""")
SPLIT = table("""
赌贝者 博十尃 场土汤 注氵主/水主 品口口口 冰冫水 大一人 麻广林/广木木 吸口及 粉米分 枪木仓 支十又 炸火乍 弹弓单 药艹约
诈讠乍/言乍 骗马扁 传亻专/人专 销钅肖/金肖 洗氵先/水先 钱钅戋/金戋 私禾厶 证讠正/言正 代亻弋/人弋 孕乃子 绑纟邦 架加木
迷辶米 偷亻俞 拍扌白 窃穴切 听口斤 盗次皿 号口丂 外夕卜 挂扌圭 裸衤果 聊耳卯 性忄生 慰尉心 做亻故 卖十买 淫氵壬
强弓虽 奸女干 杀乂木 放方攵/方文 残歹戋 吊口巾 妈女马 的白勺 操扌喿 你亻尔/人尔 去土厶 死歹匕 傻亻夋 贱贝戋 邪牙阝 教孝攵/孝文
合人一口 彩采彡 杠木工 分八刀 时日寸 机木几 海氵每/水每 洛氵各/水各 摇扌䍃 唑口坐 魂云鬼 仿亻方/人方 汽氵气/水气 油氵由/水由
氰气青 利禾刂 贷代贝 校木交 套大镸 路足各 猪犭者 盘舟皿 票西示 催亻崔 约纟勺 级纟及 群君羊 他亻也/人也 狗犭句 杂九木
络纟各 众人人人 境土竟 信亻言/人言 贩贝反 作亻乍/人乍 理王里 集隹木 资次贝 地土也 庄广土 返辶反 设讠殳/言殳 视礻见 频步页
软车欠 件亻牛 站立占 影景彡 同冂一口 城土成 陪阝咅 姐女且 论讠仑/言仑 收丩攵 怖忄布 组纟且 织纟只 相木目 割害刂 腕月宛
现王见 银钅艮/金艮 伪亻为/人为 章立早 爆火暴 职耳只 嫖女票 娼女昌 恐巩心 袭龙衣 情忄青/心青 息自心 拟扌以 文亠乂
""")
DIGITS = {
    "一": ["壹", "①", "㈠", "１", "1", "㊀", "Ⅰ", "❶", "⑴", "⒈"],
    "二": ["贰", "②", "㈡", "２", "2", "㊁", "Ⅱ", "❷", "⑵", "⒉"],
    "三": ["叁", "③", "㈢", "３", "3", "㊂", "Ⅲ", "❸", "⑶", "⒊"],
    "四": ["肆", "④", "㈣", "４", "4", "㊃", "Ⅳ", "❹", "⑷", "⒋"],
    "五": ["伍", "⑤", "㈤", "５", "5", "㊄", "Ⅴ", "❺", "⑸", "⒌"],
    "六": ["陆", "⑥", "㈥", "６", "6", "㊅", "Ⅵ", "❻", "⑹", "⒍"],
    "八": ["捌", "⑧", "㈧", "８", "8", "㊇", "Ⅷ", "❽", "⑻", "⒏"],
    "百": ["佰", "100", "１００"],
}
HOMOGLYPHS = {
    "a": "аɑαᴀꭺ",
    "b": "ЬᏏʙВᏴ",
    "c": "сϲᴄᏟС",
    "d": "ԁᏧᴅᎠ",
    "e": "еᴇꭼЕΕ",
    "f": "ꜰϝք",
    "g": "ցɡɢᏀ",
    "h": "һհʜНΗ",
    "i": "іιɪᎥІ",
    "j": "јյᴊᎫ",
    "k": "кκᴋᏦΚ",
    "l": "ӏⅼʟᏞ",
    "m": "мᴍᎷΜ",
    "n": "ոηɴΝп",
    "o": "оοօᴏО",
    "p": "рρᴘᏢР",
    "q": "ԛգ",
    "r": "гʀᏒꭱ",
    "s": "ѕꜱᏚЅ",
    "t": "тτᴛᎢТ",
    "u": "սυᴜц",
    "v": "νѵᴠᏙ",
    "w": "ԝաᴡᏔ",
    "x": "хχХΧ",
    "y": "уγʏҮ",
    "z": "ᴢᏃΖ",
}
LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7+", "b": "8", "g": "9", "l": "1", "z": "2"}
RADICALS = dict(
    zip("毛车见角贝长门页风飞马鱼鸟黄齐龙龟鬼民母西青食", "⽑⻋⻅⻆⻉⻓⻔⻚⻛⻜⻢⻥⻦⻩⻬⻰⻳⻤⺠⺟⻄⻘⻝", strict=True)
)
# what a changed character must not make of a term: words of everyday speech
ORDINARY = {"情色", "粉白", "你日", "爱做", "支枪", "投拍", "made", "pen is", "human traffic king"}

ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u2063"
BIDI = "\u200e\u200f\u061c\u202a\u202b\u202c\u2066\u2067\u2069"
MARKS = "\u0300\u0301\u0308\u0323\u0331\u0335\u0336\u0338\u035c\u0489\u20dd\u20e3"
NOISE = [
    [" ", " ", " ", "  ", "\t", "\u3000", "\u00a0", "\u2003"],
    list(".,-_*~·/|、。，…+=#^;:!•'()【】★☆→"),
    ["😀", "🔥", "❤️", "🌸", "💰", "👉", "🎲", "👩‍💻", "🏳️‍🌈"],
    ["\n", "\r\n", "\n\n"],
]
WRAPS = [
    *[("**", "**"), ("*", "*"), ("_", "_"), ("~~", "~~"), ("`", "`"), ("==", "=="), ("||", "||")],
    *[("<b>", "</b>"), ("<i>", "</i>"), ("<u>", "</u>"), ("<em class='x'>", "</em>"), ("[", "](https://a.example/x)")],
    *[('<span style="color:red">', "</span>"), ("<font color='#f00'>", "</font>")],
]
FILLERS = ["_", "*", "\\_", "<!-- -->", "<wbr>", "<br>", "<b></b>", "<span></span>", "&nbsp;"]

# --- helpers ------------------------------------------------------------------------------------------------------


def is_han(text: str) -> bool:
    return "\u4e00" <= text[0] <= "\u9fff"


def some(rng: random.Random, places: Sequence[int]) -> set[int]:
    """All of them half of the time, else one or more of them."""
    if rng.random() < 0.5:
        return set(places)
    return set(rng.sample(places, rng.randint(1, len(places))))


def swap(rng: random.Random, units: Units, table: Callable[[str], Sequence[str]]) -> Units | None:
    places = [i for i, unit in enumerate(units) if table(unit)]
    if not places:
        return None
    chosen = some(rng, places)
    return [rng.choice(table(unit)) if i in chosen else unit for i, unit in enumerate(units)]


def fill(rng: random.Random, units: Units, filler: Callable[[], str], every: float = 0.5) -> Units:
    """The filler in every gap, or in one of them; a gap at a space of the term stays as it is."""
    gaps = [i for i in range(1, len(units)) if " " not in (units[i - 1], units[i])]
    if not gaps:
        return units
    chosen = set(gaps) if rng.random() < every else {rng.choice(gaps)}
    out: Units = []
    for i, unit in enumerate(units):
        if i in chosen:
            out.append(filler())
        out.append(unit)
    return out


def each(units: Units, change: Callable[[str], str]) -> Units:
    return [unit if unit == " " else change(unit) for unit in units]


def letters(base: int, upper: bool = False) -> Callable[[str], str]:
    """Letters of an alphabet that lies in one run of 26 code points."""
    return lambda c: chr(base + ord(c) - 97) if "a" <= c <= "z" else c


@cache
def converter(name: str) -> OpenCC:
    return OpenCC(name)


@cache
def sounds() -> dict[str, list[str]]:
    """Syllable -> the common characters (level 1 of GB 2312) read so."""
    table: dict[str, list[str]] = {}
    for row in range(0xB0, 0xD8):
        for cell in range(0xA1, 0xFF):
            char = bytes((row, cell)).decode("gb2312", "ignore")
            if char:
                table.setdefault(lazy_pinyin(char)[0], []).append(char)
    return table


@cache
def enclosed() -> dict[str, list[str]]:
    """Ideograph -> its circled, parenthesised and squared forms."""
    table: dict[str, list[str]] = {}
    for code in (*range(0x3220, 0x3248), *range(0x3280, 0x32B1), *range(0x1F210, 0x1F23C), *range(0x1F240, 0x1F252)):
        plain = unicodedata.normalize("NFKC", chr(code)).strip("()〔〕")
        if len(plain) == 1 and is_han(plain):
            table.setdefault(converter("t2s").convert(plain), []).append(chr(code))
    return table


@cache
def compatible() -> dict[str, list[str]]:
    """Ideograph -> Kangxi radicals, CJK radicals and compatibility ideographs that look the same."""
    table = {char: [radical] for char, radical in RADICALS.items()}
    for code in (*range(0x2F00, 0x2FD6), *range(0xF900, 0xFADA), *range(0x2F800, 0x2FA1E)):
        plain = unicodedata.normalize("NFKC", chr(code))
        if plain != chr(code):
            table.setdefault(plain, []).append(chr(code))
    return table


# --- disguises ----------------------------------------------------------------------------------------------------


def plain(rng: random.Random, units: Units) -> Units | None:
    return units


def case(rng: random.Random, units: Units) -> Units | None:
    style = rng.randrange(4)
    if style == 0:
        return each(units, str.upper)
    if style == 1:
        return list("".join(units).title())
    if style == 2:
        return [unit.upper() if i % 2 else unit for i, unit in enumerate(units)]
    return each(units, lambda c: rng.choice((c, c.upper())))


def width(rng: random.Random, units: Units) -> Units | None:
    up = rng.random() < 0.3
    out = swap(rng, units, lambda c: chr(ord(c.upper() if up else c) + 0xFEE0) if "a" <= c <= "z" else "")
    return [("\u3000" if u == " " and rng.random() < 0.5 else u) for u in out or units]


def zero_width(rng: random.Random, units: Units) -> Units | None:
    return fill(rng, units, lambda: "".join(rng.choices(ZERO_WIDTH, k=rng.choice((1, 1, 2, 3)))))


def bidi(rng: random.Random, units: Units) -> Units | None:
    if rng.random() < 0.4:
        return ["\u202e", *reversed(units), "\u202c"]
    return fill(rng, units, lambda: rng.choice(BIDI))


def tag(rng: random.Random, units: Units) -> Units | None:
    if units[0].isascii() and rng.random() < 0.3:
        return [chr(0xE0000 + ord(unit)) for unit in units]
    return fill(rng, units, lambda: "".join(chr(0xE0000 + rng.randint(0x20, 0x7E)) for _ in range(rng.choice((1, 2)))))


def variation(rng: random.Random, units: Units) -> Units | None:
    return fill(rng, units, lambda: chr(rng.choice((0xFE00, 0xFE0E, 0xFE0F, rng.randint(0xE0100, 0xE01EF)))), 0.7)


def circled(rng: random.Random, units: Units) -> Units | None:
    if is_han(units[0]):
        return swap(rng, units, lambda c: enclosed().get(c, []))
    bases = [0x24B6, 0x24D0, 0x249C, 0x1F110, 0x1F130, 0x1F150, 0x1F170, 0x1F1E6]
    style = rng.choice(bases)
    whole = rng.random() < 0.7
    return swap(rng, units, lambda c: [letters(style if whole else rng.choice(bases))(c)] if c != " " else [])


def math(rng: random.Random, units: Units) -> Units | None:
    bases = [0x1D400, 0x1D41A, 0x1D468, 0x1D482, 0x1D4D0, 0x1D4EA, 0x1D51E, 0x1D56C, 0x1D586, 0x1D552]
    bases += [0x1D5A0, 0x1D5BA, 0x1D5D4, 0x1D5EE, 0x1D622, 0x1D656, 0x1D670, 0x1D68A]
    style = rng.choice(bases)
    return swap(rng, units, lambda c: [letters(style)(c)] if c != " " else [])


def combining(rng: random.Random, units: Units) -> Units | None:
    marks = rng.sample(MARKS, 3)
    return swap(rng, units, lambda c: [c + rng.choice(marks), c + marks[0] + marks[1]] if c != " " else [])


def compat(rng: random.Random, units: Units) -> Units | None:
    return swap(rng, units, lambda c: compatible().get(c, []))


def traditional(rng: random.Random, units: Units) -> Units | None:
    return list(converter(rng.choice(("s2t", "s2tw", "s2hk"))).convert("".join(units)))


def homoglyph(rng: random.Random, units: Units) -> Units | None:
    return swap(rng, units, lambda c: HOMOGLYPHS.get(c, ""))


def lookalike(rng: random.Random, units: Units) -> Units | None:
    return swap(rng, units, lambda c: LOOKALIKE.get(c, ""))


def digit(rng: random.Random, units: Units) -> Units | None:
    return swap(rng, units, lambda c: DIGITS.get(c, []))


def repeat(rng: random.Random, units: Units) -> Units | None:
    return swap(rng, units, lambda c: [c * 2, c * 3] if c != " " else [])


def noise(rng: random.Random, units: Units) -> Units | None:
    kind = rng.choices(NOISE, (4, 5, 2, 1))[0]
    most = rng.choice((1, 1, 2, 3, 5))

    def filler() -> str:
        if rng.random() < 0.1:
            return rng.choice(rng.choice(NOISE))
        return "".join(rng.choices(kind, k=rng.randint(1, most)))

    return fill(rng, units, filler)


def markdown(rng: random.Random, units: Units) -> Units | None:
    if rng.random() < 0.35:
        filler = rng.choice(FILLERS)
        return fill(rng, units, lambda: filler, 0.7)
    start = rng.randrange(len(units))
    end = rng.randint(start + 1, len(units))
    before, after = rng.choice(WRAPS)
    return [*units[:start], before, *units[start:end], after, *units[end:]]


def alnum(rng: random.Random, units: Units) -> Units | None:
    pool = rng.choice(("abcdefghijkmnpqrstuvwxyz", "123456789", "abcdefghkmnxyzABCDEFG123456789"))
    return fill(rng, units, lambda: "".join(rng.choices(pool, k=rng.choice((1, 1, 2)))), 1 if len(units) == 2 else 0.8)


def leet(rng: random.Random, units: Units) -> Units | None:
    out = swap(rng, units, lambda c: LEET.get(c, ""))
    return out if out and any("a" <= c <= "z" for c in out) else None  # a bare number is a number


def homophone(rng: random.Random, units: Units) -> Units | None:
    said = lazy_pinyin("".join(units))
    if len(said) != len(units):
        return None
    places = [i for i, s in enumerate(said) if set(sounds().get(s, ())) - {units[i]}]
    if not places:
        return None
    most = 1 if len(units) == 2 else len(places)
    count = rng.choice((1, 1, rng.randint(1, most), most))
    chosen = set(rng.sample(places, min(count, len(places))))
    return [
        rng.choice([c for c in sounds()[said[i]] if c != unit]) if i in chosen else unit for i, unit in enumerate(units)
    ]


def pinyin(rng: random.Random, units: Units) -> Units | None:
    said = lazy_pinyin("".join(units), style=rng.choice((Style.NORMAL, Style.NORMAL, Style.TONE)))
    said = rng.choice((said, said, [s.upper() for s in said], [s.title() for s in said]))
    return list(rng.choice(("", " ", " ")).join(said))


def mixed_pinyin(rng: random.Random, units: Units) -> Units | None:
    said = lazy_pinyin("".join(units), style=rng.choice((Style.NORMAL, Style.NORMAL, Style.NORMAL, Style.TONE)))
    if len(said) != len(units):
        return None
    if rng.random() < 0.2:
        said = [s.upper() for s in said]
    chosen = rng.sample(range(len(units)), rng.randint(1, len(units) - 1))
    return [said[i] if i in chosen else unit for i, unit in enumerate(units)]


def split(rng: random.Random, units: Units) -> Units | None:
    return swap(rng, units, lambda c: SPLIT[c].split("/") if c in SPLIT else [])


def backwards(rng: random.Random, units: Units) -> Units | None:
    return units[::-1]


def entity(rng: random.Random, units: Units) -> Units | None:
    forms = ["&#{0};", "&#{0};", "&#x{0:x};", "&#x{0:X};", "&#{0:07d};", "&#{0}", "&amp;#{0};"]
    form = rng.choice(forms)
    style = rng.random()
    if style < 0.15:
        return fill(rng, units, lambda: rng.choice(("&zwnj;", "&shy;", "&ZeroWidthSpace;", "&nbsp;", "&lowbar;")), 0.8)
    if units[0].isascii() and style < 0.4:
        return each(units, lambda c: f"&{c}opf;" if c.isalpha() else c)
    keep = 0.3 if style > 0.75 and form.endswith(";") else 0.0
    return ["".join(c if rng.random() < keep else form.format(ord(c)) for c in unit) for unit in units]


def percent(rng: random.Random, units: Units) -> Units | None:
    text = "".join(units)
    if rng.random() < 0.2:
        return ["".join(f"%u{ord(c):04X}" for c in text)]
    out = "".join(f"%{byte:02X}" for byte in text.encode())
    if rng.random() < 0.3:
        out = out.lower()
    if rng.random() < 0.15:
        out = out.replace("%", "%25")
    return [rng.choice(("", "", "https://a.example/s?q=")), out]


def escape(rng: random.Random, units: Units) -> Units | None:
    text = "".join(units)
    style = rng.randrange(4)
    if style == 0:
        return ["".join(f"\\x{byte:02x}" for byte in text.encode())]
    form = ("\\u{0:04x}", "\\u{0:04X}", "\\u{{{0:x}}}")[style - 1]
    return [form.format(ord(c)) for c in text]


def base_64(rng: random.Random, units: Units) -> Units | None:
    data = "".join(units).encode()
    out = rng.choice((base64.b64encode, base64.b64encode, base64.urlsafe_b64encode))(data).decode()
    return [rng.choice(("", "", "base64:")), out if rng.random() < 0.7 else out.rstrip("=")]


def hexadecimal(rng: random.Random, units: Units) -> Units | None:
    data = "".join(units).encode()
    out = rng.choice((data.hex(), data.hex(), data.hex(" "), "0x" + data.hex(), " ".join(f"0x{b:02x}" for b in data)))
    return [out.upper().replace("0X", "0x") if rng.random() < 0.3 else out]


def rot13(rng: random.Random, units: Units) -> Units | None:
    return list(codecs.encode("".join(units), "rot13"))


def combination(rng: random.Random, units: Units) -> Units | None:
    """Two or three at once, at most one of each stage, in this order."""
    if is_han(units[0]):
        stages = [[traditional, lookalike, homophone, compat, repeat, mixed_pinyin, split, backwards]]
    else:
        stages = [[case, width, circled, math, homoglyph, leet, repeat, backwards]]
    stages.append([noise, noise, zero_width, variation, combining, markdown, bidi])
    encoding: list[Disguise] = [entity, percent, escape]
    chosen = rng.choice((stages, stages, [*stages, encoding], [rng.choice(stages), encoding]))
    for stage in chosen:
        before = units
        units = rng.choice(stage)(rng, units) or units
        if "".join(units) == "".join(before):
            return None
    return units


# technique -> disguise, cases in Chinese, cases in English
TECHNIQUES: dict[str, tuple[Disguise, int, int]] = {
    "plain": (plain, 28, 16),
    "case": (case, 0, 28),
    "width": (width, 0, 28),
    "zero_width": (zero_width, 28, 16),
    "bidi": (bidi, 22, 14),
    "tag": (tag, 20, 14),
    "variation": (variation, 20, 14),
    "circled": (circled, 12, 30),
    "math": (math, 0, 30),
    "combining": (combining, 20, 14),
    "compat": (compat, 40, 0),
    "traditional": (traditional, 48, 0),
    "homoglyph": (homoglyph, 0, 50),
    "lookalike": (lookalike, 50, 0),
    "digit": (digit, 36, 0),
    "repeat": (repeat, 26, 18),
    "noise": (noise, 52, 30),
    "markdown": (markdown, 28, 18),
    "alnum": (alnum, 44, 0),
    "leet": (leet, 0, 38),
    "homophone": (homophone, 60, 0),
    "pinyin": (pinyin, 48, 0),
    "mixed_pinyin": (mixed_pinyin, 44, 0),
    "split": (split, 46, 0),
    "reversed": (backwards, 24, 16),
    "entity": (entity, 24, 18),
    "percent": (percent, 20, 12),
    "escape": (escape, 22, 14),
    "base64": (base_64, 20, 14),
    "hex": (hexadecimal, 18, 12),
    "rot13": (rot13, 0, 26),
    "combination": (combination, 48, 28),
}
# these may take the sentence along: technique -> how often
WHOLE_TEXT = {
    "traditional": 0.4,
    "entity": 0.15,
    "percent": 0.3,
    "escape": 0.3,
    "base64": 0.4,
    "hex": 0.3,
    "rot13": 0.4,
}


def disguised(rng: random.Random, technique: str, term: str, sentence: str) -> str | None:
    disguise = TECHNIQUES[technique][0]
    if rng.random() < WHOLE_TEXT.get(technique, 0) and sentence != "{}":
        out = disguise(rng, list(sentence.replace("{}", term)))
        return "".join(out) if out and term not in "".join(out) else None
    out = disguise(rng, list(term))
    surface = "".join(out or ())
    if not surface or surface.lower() in ORDINARY or (surface in phrases_dict and surface != term):
        return None
    if technique != "plain" and any(other in surface for other in TERMS):
        return None
    return sentence.replace("{}", surface)


def sentences(block: str) -> list[str]:
    """One sentence a line; a line without {} belongs to its neighbour with one."""
    text = block.strip()
    for whole in ("line one\n{}\nline three", "Q: {}\nA: see the picture", "内容：{}\n价格：面议", "问：{}\n答：见图"):
        text = text.replace(whole, whole.replace("\n", "\v"))
    return [line.replace("\v", "\n") for line in text.split("\n")]


TERMS = [json.loads(line)["term"] for line in (HERE / "terms.jsonl").read_text("utf-8").splitlines()]


def main() -> None:
    pools = {
        "zh": ([t for t in TERMS if is_han(t)], sentences(ZH)),
        "en": ([t for t in TERMS if not is_han(t)], sentences(EN) + sentences(MIXED)),
    }
    seen: set[str] = set()
    with (HERE / "cases.jsonl").open("w", encoding="utf-8") as file:
        for technique, (_, *counts) in TECHNIQUES.items():
            for lang, count in zip(pools, counts, strict=True):
                rng = random.Random(f"{SEED} {technique} {lang}")
                terms, carriers = pools[lang]
                done = 0
                for _ in range(count * 200):
                    if done == count:
                        break
                    term = rng.choice(terms)
                    text = disguised(rng, technique, term, rng.choice(carriers))
                    if text is None or text in seen:
                        continue
                    seen.add(text)
                    done += 1
                    case_id = f"{technique}-{lang}-{done:03d}"
                    row = {"id": case_id, "lang": lang, "technique": technique, "term": term, "text": text}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
