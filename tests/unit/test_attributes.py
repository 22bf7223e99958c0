"""Attributes of the user: which fields of a request's metadata are taken away before the model is asked, and which are not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.attributes import ATTRIBUTES, attribute, stripped
from app.errors import PolicyError
from app.policy import parse

NAMED = {
    "race": ["race", "userRace", "user-race", "USER_RACE", "种族", "用户种族", "種族"],
    "ethnicity": ["ethnicity", "user_ethnicity", "ethnic_group", "民族", "用户的民族", "minzu"],
    "nationality": ["nationality", "userNationality", "citizenship", "国籍", "國籍"],
    "country": ["country", "country_code", "countryCode", "user.country", "country_of_birth", "国家", "所在国"],
    "religion": ["religion", "religious_belief", "userFaith", "belief", "宗教信仰", "信仰"],
    "gender": ["gender", "sex", "user_gender", "userGender", "user-gender", "usergender", "UserGender", "gender1",
               "性别", "用户性别", "性別"],
    "age": ["age", "user_age", "userAge", "userage", "age_group", "agegroup", "ageRange", "birth_date", "birthDate", "dob", "DOB",
            "dateOfBirth", "birthday", "年龄", "年龄段", "会员年龄", "出生日期", "ｕｓｅｒ＿ａｇｅ"],
    "region": ["region", "user_region", "hometown", "home_town", "user_city", "birthplace", "籍贯", "户籍", "地域"],
    "occupation": ["occupation", "jobTitle", "user_job", "profession", "职业", "客户职业"],
    "health": ["health_status", "disability", "has_disability", "medicalHistory", "user_disabled", "健康状况", "残疾情况", "病史"],
    "marital_status": ["marital_status", "maritalStatus", "is_married", "婚姻状况", "婚否"],
    "political_status": ["political_status", "politicalParty", "party_membership", "政治面貌", "党派"],
}  # fmt: skip
CLEAN = """page message agent stage image language locale usage_region usageRegion deployment_region aws_region gender_studies_course
max_age cache_age agency package manager user_agent userAgent user_id userId username user_name account_id race_condition embrace
trace trace_id
sextant essex disabled job job_id work_queue state status name code info end the user client_id stage_name course section
belief_state health_check healthcheck service_health country_music countryside regional_office usage message_age_ms client_version
has_image is_test personal 页面 消息 语言 部署地区 性别研究课程 民族音乐 国家标准号 健康教育栏目 年度 会话 用户编号 订单号
""".split()


@pytest.mark.parametrize(("name", "key"), [(n, k) for n, keys in NAMED.items() for k in keys])
def test_article_12_an_attribute_is_known_in_every_common_spelling(name: str, key: str) -> None:
    assert attribute(key) == name


def test_article_12_every_attribute_is_tried() -> None:
    assert set(NAMED) == set(ATTRIBUTES)


@pytest.mark.parametrize("key", CLEAN)
def test_article_12_a_word_that_stands_for_something_else_takes_nothing_away(key: str) -> None:
    assert attribute(key) is None


def test_article_12_attributes_are_stripped_wherever_they_are_nested_and_named_without_their_values() -> None:
    body = {
        "model": "m", "gender": "not metadata", "messages": [{"role": "user", "content": "我的性别是…"}],
        "metadata": {
            "user_gender": "f", "trace": "t-1", "profile": {"年龄": 33, "shop": "north", "more": [{"religion": "x", "page": 2}]},
            "packed": '{"userAge": 33, "tier": "gold"}', "note": "{not json", "empty": "[]",
        },
    }  # fmt: skip
    before = copy.deepcopy(body)
    left, names = stripped(body)
    assert body == before, "the caller's own is as it was"
    assert left["metadata"] == {
        "trace": "t-1", "profile": {"shop": "north", "more": [{"page": 2}]}, "packed": '{"tier":"gold"}',
        "note": "{not json", "empty": "[]",
    }  # fmt: skip
    assert names == ["gender", "age", "religion", "age"] and list(left) == list(body)
    assert {k: v for k, v in left.items() if k != "metadata"} == {k: v for k, v in body.items() if k != "metadata"}


def test_article_12_the_operator_names_more_and_keeps_what_the_service_needs() -> None:
    body = {"metadata": {"loyaltyTier": 3, "age": 33, "country": "x"}}
    left, names = stripped(body, ["loyalty_tier"], ["age"])
    assert left == {"metadata": {"age": 33}} and names == ["loyalty_tier", "country"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_article_12_whatever_a_body_is_without_an_attribute_it_stays_the_very_same(value: Any) -> None:
    for body in (value, {"metadata": value}):
        left, names = stripped(body)
        assert left is body or names
        assert stripped(left) == (left, [])


def test_article_12_the_policy_refuses_to_keep_what_is_no_attribute() -> None:
    assert parse(b"attributes: {strip: [tier], keep: [age]}").common.rules.attributes.keep == ["age"]
    for wrong in (b"attributes: {keep: [shoe]}", b"apps: {web: {attributes: {keep: [shoe]}}}"):
        with pytest.raises(PolicyError, match=r"attributes\.keep"):
            parse(wrong)
