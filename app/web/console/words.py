"""What states, actions and moves are called: Chinese, English. Law: one word each, the same on every page; ids stay as they are."""

from __future__ import annotations

STATES = {
    "received": ("已收到", "received"), "verified": ("已核验", "verified"), "provisional": ("临时屏蔽", "held for now"),
    "confirmed": ("已确认", "confirmed"), "rejected": ("不成立", "rejected"), "in_optimisation": ("优化中", "in optimisation"),
    "handed_over": ("已移交", "handed over"), "probing": ("复测中", "probing"), "closed": ("已办结", "closed"),
    "overdue": ("已超期", "overdue"), "reopened": ("已重开", "reopened"), "excepted": ("书面例外", "excepted"),
    "upheld": ("申诉成立", "upheld"), "refused": ("不予支持", "refused"), "withdrawn": ("已撤回", "withdrawn"),
}  # fmt: skip
ACTIONS = {
    "pass": ("放行", "pass"), "flag": ("标记", "flag"), "mask": ("打码", "mask"), "replace": ("替换", "replace"),
    "block": ("拦截", "block"), "regenerate": ("重新生成", "regenerate"),
}  # fmt: skip
LEVELS = {
    "warn": ("提醒", "warned"), "limit": ("限速", "limited"), "suspend": ("暂停", "suspended"), "terminate": ("终止", "terminated"),
}  # fmt: skip
DECISIONS = {
    "confirm": ("成立", "confirm"), "reject": ("不成立", "reject"), "widen": ("扩大范围", "widen"),
    "optimise": ("交模型优化", "send to optimisation"), "hand_over": ("移交供应商", "hand over"), "probe": ("复测", "probe"),
    "except": ("书面例外结案", "close by exception"), "reopen": ("重开", "reopen"), "undo": ("撤销", "undo"),
}  # fmt: skip
STEPS = DECISIONS | {
    "report": ("收到举报", "reported"), "claim": ("认领", "claimed"), "look": ("查看证据", "evidence opened"), "lapse": ("临时屏蔽到期", "hold lapsed"),
    "judge": ("复测结果", "probe judged"), "fall_due": ("超期", "fell due"), "second": ("复核", "looked at again"),
    "export": ("导出样本", "exported"), "alert": ("提醒", "alert"), "erase": ("到期删除", "erased"), "set_aside": ("搁置", "set aside"),
    "uphold": ("支持", "upheld"), "refuse": ("不予支持", "refused"), "ask": ("重新询问模型", "model asked"), "answered": ("模型已答", "model answered"),
    "login": ("登录", "logged in"), "logout": ("退出", "logged out"), "account_add": ("新建账号", "account made"),
    "account_change": ("变更账号", "account changed"), "account_remove": ("删除账号", "account removed"), "password": ("改密码", "password changed"),
    "likes": ("个人设置", "own settings"), "roll_back": ("回滚", "rolled back"), "list_load": ("载入清单", "list loaded"),
    "list_remove": ("移除清单", "list removed"), "statement": ("发布公示", "statement published"), "privacy_export": ("个人信息查阅", "access request"),
    "privacy_erase": ("个人信息删除", "erasure request"), "warn": ("提醒用户", "warned"), "limit": ("限制用户", "limited"),
    "suspend": ("暂停用户", "suspended"), "terminate": ("终止用户", "terminated"), "lift": ("解除", "lifted"), "keep": ("维持", "kept"),
    "entry_extend": ("改词条到期日", "end of an entry set"), "entry_decline": ("未同意词条", "entry declined"), "propose": ("建议终止", "end proposed"),
    "publish": ("发布公示", "statement published"), "agreement": ("无标识约定", "agreement"), "agreement_end": ("约定结束", "agreement ended"),
    "change": ("版本变更", "versions changed"), "backup": ("备份", "backed up"), "restore": ("恢复", "restored"),
    "entry": ("新增词条", "entry added"), "entry_remove": ("移除词条", "entry removed"), "entry_propose": ("提议词条", "entry proposed"),
}  # fmt: skip
REASONS = {
    "confirm": (
        ("内容与指南所列情形相符", "it is what the guideline describes"), ("教唆或传授方法", "it incites or instructs"),
        ("出售或提供", "it sells or offers"), ("披露他人信息", "it discloses somebody's information"),
    ),
    "reject": (
        ("新闻、史料或法律文本", "news, history or a text of law"), ("教学、研究或文学", "teaching, research or fiction"),
        ("求助或反对言论", "somebody seeks help or speaks against it"), ("与所报类别不符", "it is not what was reported"),
    ),
}  # fmt: skip
"""Reasons that are often right, so that a person need not type them."""
TECHNIQUES = {
    "case": ("大小写", "case"), "width": ("全半角", "width"), "zero_width": ("零宽字符", "zero width"), "traditional": ("繁体", "traditional"),
    "homoglyph": ("形近字母", "look-alike letters"), "leet": ("数字代字母", "leet"), "repeat": ("重复", "repeats"), "noise": ("夹杂符号", "noise"),
    "pinyin": ("拼音", "pinyin"), "homophone": ("谐音", "homophone"), "lookalike": ("形近字", "look-alike"), "split": ("拆字", "split"),
    "reversed": ("倒写", "reversed"), "base64": ("Base64", "base64"), "hex": ("十六进制", "hex"), "copy": ("片段", "partial copy"),
    "join": ("跨消息", "across messages"), "interleave": ("交错", "interleaved"),
}  # fmt: skip
ROLES = {
    "reviewer": ("审核员", "reviewer"), "lead": ("审核主管", "lead"), "operator": ("运维", "operator"), "auditor": ("审计", "auditor"),
}  # fmt: skip
KINDS = {
    "pi_correct": ("更正个人信息", "correct personal information"), "pi_delete": ("删除个人信息", "delete personal information"),
    "pi_block": ("屏蔽个人信息", "block personal information"), "infringement": ("侵权", "infringement"),
    "unlawful_content": ("违法内容", "unlawful content"), "wrong_block": ("误拦截", "wrongly blocked"),
    "blocked_prompt": ("申诉：提问被拒", "appeal: a refused prompt"), "blocked_answer": ("申诉：回答被拦", "appeal: a blocked answer"),
    "standing": ("申诉：账号处置", "appeal: a measure against an account"),
}  # fmt: skip
LANES = {
    "overdue": ("已超期", "overdue"), "soon": ("14 天内到期", "due in 14 days"), "undecided": ("待判定", "to decide"),
    "duty": ("整改中", "in remediation"), "decided": ("已结束", "ended"),
}  # fmt: skip
KEYS = {
    "down": ("下一条 j", "next row: j"), "up": ("上一条 k", "row before: k"), "next": ("下一页 n", "next page: n"), "search": ("搜索 /", "search: /"),
    "claim": ("认领或释放 c", "claim or let go: c"), "text": ("显示正文 o", "show the text: o"), "prompt": ("显示提问 p", "show the prompt: p"),
    "comments": ("显示举报说明 m", "show the comments: m"), "unmask": ("显示个人信息 u", "unmask: u"), "hold": ("按住查看 h", "hold to read: h"),
    "confirm": ("判定成立 a", "confirm: a"), "reject": ("判定不成立 r", "reject: r"), "skip": ("跳过 s", "skip: s"), "undo": ("撤销 z", "undo: z"),
    "guide": ("审核指引 g", "guideline: g"), "similar": ("相似案件 i", "similar cases: i"),
}  # fmt: skip
"""What has a key of its own, in words with the usual one."""
