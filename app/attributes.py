"""Attributes of the user in a request's `metadata`: who somebody is must not decide what the model says. Draft Measures, Article 12.

Law: pure; a field is known by its name alone, and whole: a word of it that stands for something else (`gender_studies_course`, the
`usage_region` of a deployment) takes nothing away. What is told of it is the attribute's name, never a value. Free text is not read here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Any

from app import strictjson
from app.errors import RequestError

_NAMES = {
    "race": "race races racial racialorigin skincolor skincolour caste zhongzu 种族 種族 人种 人種 肤色 膚色",
    "ethnicity": "ethnicity ethnic ethnicities ethnicorigin ethnicbackground ethnicminority minzu 民族 民族成分 族裔 族群",
    "nationality": "nationality nationalities citizenship citizenships nationalorigin 国籍 國籍 公民身份",
    "country": "country countries nation countryoforigin countryofbirth countryofresidence homecountry birthcountry "
    "residencecountry 国家 國家 国别 國別 出生国 所在国",
    "religion": "religion religions religious religiousbelief religiousbeliefs religiousaffiliation religiousviews belief beliefs faith "
    "creed denomination zongjiao zongjiaoxinyang 宗教 宗教信仰 信仰 教派",
    "gender": "gender genders sex genderidentity sexassignedatbirth biologicalsex pronoun pronouns sexualorientation xingbie 性别 性別 "
    "性取向",
    "age": "age ages ageinyears birth birthday birthdate birthdates dateofbirth dob birthyear yearofbirth birthmonth nianling shengri "
    "chushengriqi 年龄 年齡 年纪 年紀 岁数 周岁 生日 出生日期 出生年月 出生年月日 出生年份 出生時間 出生时间",
    "region": "region regions province hometown birthplace placeofbirth placeoforigin regionoforigin nativeplace homeregion homeprovince "
    "homecity ancestralhome domicile hukou jiguan huji 地域 地区 地區 籍贯 籍貫 户籍 戶籍 户口 戶口 家乡 家鄉 老家 "
    "祖籍 出生地 居住地 常住地 省份",
    "occupation": "occupation occupations profession jobtitle career vocation employment employmentstatus zhiye 职业 職業 职务 職務 工种",
    "health": "health healthcondition healthconditions disability disabilities impairment impairments handicap medicalhistory "
    "medicalcondition medicalconditions medicalrecord illness illnesses disease diseases chronicdisease pregnancy pregnant bloodtype "
    "健康 身体 残疾 殘疾 残障 殘障 病史 疾病 疾病史 既往病史 慢性病 怀孕 懷孕 血型",
    "marital_status": "marital married marriage civilstatus relationshipstatus hunyin 婚姻 婚否 已婚 未婚 婚育",
    "political_status": "politicalstatus politicalparty politicalaffiliation politicalview politicalviews politicalopinion "
    "politicalopinions politicalbelief politicalbeliefs politicalorientation politicalleaning partymember partymembership "
    "partyaffiliation zhengzhimianmao 政治面貌 政治立场 政治立場 政治倾向 政治傾向 政治信仰 政治观点 党派 黨派",
}  # fmt: skip
_OWN = {"region": "city state location", "occupation": "job work", "health": "diagnosis disabled"}
"""Names that say something of a person only where they stand behind one: `job` alone is a batch job."""
ATTRIBUTES = tuple(_NAMES)
_KEYS = {key: name for name, keys in _NAMES.items() for key in keys.split()}
_OWN_KEYS = {key: name for name, keys in _OWN.items() for key in keys.split()}
_OWNERS = frozenset(
    "user users customer client member person personal my self end the account sender speaker human enduser profile".split()
)
_ASKED = frozenset({"is", "has"})
_TAILS = frozenset("code name value group range band bracket years status info".split())
_ZH_OWNERS = re.compile(r"(?:当前|本)?(?:用户|用戶|客户|客戶|会员|會員|个人|個人|使用者|本人|我)的?")
_ZH_TAILS = re.compile(r"(?:状况|狀況|状态|情况|信息|类别|代码|名称|段|范围|分组)$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


_LONGEST = 80
"""Characters of a name that is looked at: each costs all before it."""


def attribute(key: str) -> str | None:
    """The attribute that a field of this name holds, if it is one: `userGender`, `user_gender`, `用户性别` are all "gender"."""
    if len(key) > _LONGEST:
        return None
    words = [w.lower() for w in _WORD.findall(unicodedata.normalize("NFKC", key))]
    if any(w >= "\u2e80" for w in words):
        written = "".join(words)
        bare = _ZH_OWNERS.sub("", written, count=1) if _ZH_OWNERS.match(written) else written
        return _KEYS.get(bare) or _KEYS.get(_ZH_TAILS.sub("", bare))
    whole, owned = words, False
    while words and words[0] in _OWNERS | _ASKED:
        owned, words = owned or words[0] in _OWNERS, words[1:]
    if (
        whole == words
        and len(words) == 1
        and (one := re.fullmatch(r"(?:end)?(?:user|customer|member)s?(.+)", words[0]))
    ):
        owned, words = True, [one[1]]
    while words:
        joined = "".join(words)
        if found := _KEYS.get(joined) or (_OWN_KEYS.get(joined) if owned else None):
            return found
        if words[-1] not in _TAILS and not words[-1].isdigit():
            break
        words = words[:-1]
    if len(words) == 1 and (two := re.fullmatch(rf"(.+?)(?:{'|'.join(_TAILS)})", words[0])):
        return _KEYS.get(two[1])  # agegroup
    return None


def stripped(body: Any, strip: Collection[str] = (), keep: Collection[str] = ()) -> tuple[Any, list[str]]:
    """A request's body without the user's attributes in its `metadata`, and what was taken away, by name. `strip`: other fields that the
    operator names; `keep`: attributes that the service needs. The same body where there are none."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not metadata or not isinstance(metadata, dict):
        return body, []
    found: list[str] = []
    own = {_plain(name): name for name in strip}
    left = _without(metadata, own, frozenset(keep), found)
    return (body | {"metadata": left}, found) if found else (body, found)


def _plain(key: str) -> str:
    return "".join(_WORD.findall(unicodedata.normalize("NFKC", key))).lower()


def _without(value: Any, own: dict[str, str], keep: frozenset[str], found: list[str]) -> Any:
    if isinstance(value, dict):
        left = {}
        for key, inner in value.items():
            name = own.get(_plain(key)) or attribute(key)
            if name is not None and name not in keep:
                found.append(name)
            else:
                left[key] = _without(inner, own, keep, found)
        return left
    if isinstance(value, list):
        return [_without(inner, own, keep, found) for inner in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        # OpenAI's values are strings: who has more to say writes JSON into one.
        try:
            inner = strictjson.loads(value.encode())
        except (RequestError, UnicodeEncodeError):
            return value
        before = len(found)
        inner = _without(inner, own, keep, found)
        return strictjson.dumps(inner).decode() if len(found) > before else value
    return value
