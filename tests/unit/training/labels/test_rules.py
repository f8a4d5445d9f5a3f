"""The traps of report language, in Chinese and English."""

import time
from pathlib import Path

import pytest
import yaml

from clearfilm.errors import ConfigurationError
from training.labels import lexicon as lexicons
from training.labels.lexicon import Lexicon
from training.labels.rules import MAXIMUM_CHARACTERS, Label, RuleSet, label_report

NO_FINDING, FINDING, INDETERMINATE = "no_finding", "finding", "indeterminate"
NORMAL_FINDINGS_ZH = (
    "胸廓对称;肋骨走行自然;两肺门大小、位置、密度正常;两肺纹理走行自然;两肺野清晰,未见实变及肿块影;"
    "胸膜无增厚;气管纵隔居中;心影形态大小正常;双膈光滑,肋膈角锐利。"
)
NORMAL_FINDINGS_EN = "The heart is normal in size. The mediastinum is unremarkable. The lungs are clear."


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return lexicons.load()


def label(
    lexicon: Lexicon, impression: str, findings: str = "", rule_set: RuleSet = "wide", accept_no_acute: bool = False
) -> Label:
    return label_report(findings, impression, lexicon=lexicon, rule_set=rule_set, accept_no_acute=accept_no_acute)


@pytest.mark.parametrize(
    "impression",
    [
        "两肺心膈未见异常",
        "两肺心膈未见明显异常。",
        "1、两肺心膈未见异常",
        "印象：双肺心膈未见明确异常",
        "心、肺、膈未见异常",
        "心 肺 膈 未见异常",
        "胸部正位片未见明显异常",
        "胸部Ｘ线平片未见明显异常征象",
        "胸片未见异常",
        "心肺未见异常",
        "Normal chest.",
        "NORMAL CHEST RADIOGRAPH",
        "Normal chest x-XXXX.",
        "Impression: 1. No abnormality detected.",
        "NAD",
        "Unremarkable.",
        "Clear lungs with normal heart size.",
        "No acute or chronic abnormality.",
    ],
)
@pytest.mark.parametrize("rule_set", ["wide", "strict"])
def test_a_whole_impression_of_the_lexicon_is_no_finding(lexicon: Lexicon, impression: str, rule_set: RuleSet) -> None:
    found = label(lexicon, impression, rule_set=rule_set)
    assert (found.label, found.rule) == (NO_FINDING, "normal-impression")


@pytest.mark.parametrize(
    ("findings", "impression"),
    [
        (NORMAL_FINDINGS_ZH, ""),
        (NORMAL_FINDINGS_ZH, "双肺未见活动性病变"),
        (NORMAL_FINDINGS_EN, "No acute disease."),
        ("Lungs are clear, no effusion, heart size normal", ""),
        ("Heart is not enlarged. Lungs are clear.", ""),
        ("No focal consolidation, effusion, or pneumothorax is seen.", "No acute process."),
        ("Infiltrates are not seen. The heart is normal.", ""),
        ("", "两肺clear，心影normal"),
        ("XXXX are intact. The lungs are clear. The XXXX is normal.", "No acute XXXX disease."),
        ("心影不大,两肺纹理清晰", ""),
    ],
)
def test_normal_sentences_are_no_finding_by_the_wide_rule_only(
    lexicon: Lexicon, findings: str, impression: str
) -> None:
    wide = label(lexicon, impression, findings)
    assert (wide.label, wide.rule) == (NO_FINDING, "all-normal")
    assert label(lexicon, impression, findings, rule_set="strict").label in (NO_FINDING, INDETERMINATE)


@pytest.mark.parametrize(
    "impression",
    [
        "余心肺膈未见异常",
        "其余未见异常",
        "余未见异常",
        "右肺钙化灶。余未见异常",
        "除右上肺钙化灶外,余未见异常",
        "除左侧肋骨外未见异常",
        "Otherwise normal chest.",
        "The lungs are otherwise clear.",
        "Remainder of the chest is normal.",
        "Clear lungs except for the left base.",
    ],
)
def test_the_rest_is_normal_means_finding(lexicon: Lexicon, impression: str) -> None:
    assert label(lexicon, impression).label == FINDING


def test_rest_alone_names_its_rule(lexicon: Lexicon) -> None:
    assert label(lexicon, "余心肺膈未见异常").rule == "rest-is-normal"
    assert label(lexicon, "Otherwise normal chest.").rule == "rest-is-normal"


@pytest.mark.parametrize(
    "impression",
    [
        "1.心肺膈未见异常。2.右第5肋陈旧骨折",
        "心肺膈未见异常 右第5肋陈旧骨折",
        "心肺膈未见异常右第5肋骨折",
        "心肺膈未见异常（右侧第6肋骨陈旧性骨折）",
        "未见异常两肺纹理增多",
        "心肺未见异常,胸椎侧弯",
        "1. Normal chest. 2. Old right rib fracture.",
        "Normal chest with a healed rib fracture",
    ],
)
@pytest.mark.parametrize("rule_set", ["wide", "strict"])
def test_normal_is_not_the_whole_impression(lexicon: Lexicon, impression: str, rule_set: RuleSet) -> None:
    assert label(lexicon, impression, rule_set=rule_set).label == FINDING


@pytest.mark.parametrize(
    "impression",
    [
        "双肺未见活动性病变",
        "两肺未见急性病变",
        "No active disease.",
        "No acute cardiopulmonary abnormality.",
        "No evidence of acute disease",
        "Negative for acute abnormality.",
        "No acute XXXX process.",
    ],
)
def test_no_acute_disease_alone_is_indeterminate_unless_the_site_says_otherwise(
    lexicon: Lexicon, impression: str
) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.rule) == (INDETERMINATE, "no-acute-only")
    assert label(lexicon, impression, accept_no_acute=True).label == NO_FINDING


@pytest.mark.parametrize(
    "impression",
    [
        "未见明显变化",
        "较前片相仿",
        "同前",
        "与前片比较未见明显变化",
        "No interval change.",
        "Stable chest.",
        "Unchanged.",
    ],
)
def test_no_change_inherits_nothing(lexicon: Lexicon, impression: str) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.rule) == (INDETERMINATE, "no-change-only")


def test_no_change_in_a_finding_does_not_deny_the_finding(lexicon: Lexicon) -> None:
    assert label(lexicon, "No change in cardiomegaly.").label == FINDING
    assert label(lexicon, "右侧胸腔积液未见明显变化").label == FINDING


@pytest.mark.parametrize(
    "impression",
    ["未见明显好转", "未见明显吸收", "未见肺炎吸收", "无好转", "No significant improvement.", "Not resolved."],
)
def test_negated_improvement_is_a_finding(lexicon: Lexicon, impression: str) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.rule) == (FINDING, "not-improved")


@pytest.mark.parametrize(
    "impression",
    [
        "陈旧性病变",
        "右上肺纤维索条",
        "钙化灶",
        "胸膜增厚粘连",
        "主动脉硬化",
        "主动脉迂曲",
        "脊柱侧弯",
        "胸椎退行性变",
        "两肺纹理增多",
        "两肺纹理增粗",
        "Calcified granuloma.",
        "Tortuous aorta.",
        "Mild degenerative changes of the spine.",
        "Old healed changes",
    ],
)
def test_old_and_harmless_is_a_finding_with_tag_minor(lexicon: Lexicon, impression: str) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.tags) == (FINDING, ("minor",))


@pytest.mark.parametrize(
    "impression",
    [
        "PICC置管",
        "起搏器",
        "右侧胸腔引流管",
        "内固定术后改变",
        "Right PICC.",
        "Pacemaker in place.",
        "Sternotomy wires intact.",
    ],
)
def test_devices_and_operations_are_findings_with_tag_device(lexicon: Lexicon, impression: str) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.tags) == (FINDING, ("device",))


@pytest.mark.parametrize(
    "impression",
    ["乳头影", "吸气不足", "体位不正", "伪影", "Nipple shadow.", "Low lung volumes.", "The patient is rotated."],
)
def test_quality_and_variants_are_tagged_and_not_guessed(lexicon: Lexicon, impression: str) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.tags) == (INDETERMINATE, ("quality",))
    assert label(lexicon, f"两肺心膈未见异常。{impression}").label == INDETERMINATE


@pytest.mark.parametrize(
    "impression", ["请结合临床", "两肺心膈未见异常,建议复查", "两肺清晰。建议CT", "Clear lungs. Follow up recommended."]
)
def test_advice_is_never_no_finding(lexicon: Lexicon, impression: str) -> None:
    found = label(lexicon, impression)
    assert (found.label, found.rule) == (INDETERMINATE, "advice")


@pytest.mark.parametrize(
    "impression",
    [
        "肺炎可能",
        "考虑肺炎",
        "肺炎不除外",
        "结核待排",
        "可疑结节",
        "气胸未除外",
        "Possible pneumonia.",
        "Cannot exclude pneumonia.",
        "No effusion, pneumonia cannot be excluded.",
        "Opacity not seen on prior.",
    ],
)
def test_doubt_is_a_finding(lexicon: Lexicon, impression: str) -> None:
    assert label(lexicon, impression).label == FINDING


@pytest.mark.parametrize("impression", ["两肺心膈未见异常？", "Normal chest?", "心肺膈大致正常"])
def test_a_hedged_normal_is_not_no_finding(lexicon: Lexicon, impression: str) -> None:
    assert label(lexicon, impression).label == INDETERMINATE


@pytest.mark.parametrize(
    "impression",
    [
        "未见肺炎，但心影增大",
        "无气胸,左侧胸腔积液",
        "未见气胸;心影增大",
        "两肺未见明显渗出影 左侧胸膜增厚",
        "No pneumothorax but cardiomegaly.",
        "No pneumothorax; however small effusion.",
        "No pneumothorax, small left effusion.",
        "No pneumothorax and the heart is enlarged.",
        "No pneumothorax. There is a left effusion.",
        "No there is an effusion",
        "Small effusion is present, pneumothorax is not seen.",
        "Lungs are not clear.",
        "Heart is not normal.",
        "No acute disease. Stable cardiomegaly.",
    ],
)
def test_negation_ends_where_its_clause_ends(lexicon: Lexicon, impression: str) -> None:
    assert label(lexicon, impression).label == FINDING


@pytest.mark.parametrize("impression", ["膝关节未见异常", "Normal knee.", "Lumbar spine. Normal.", "No pneumothorax."])
def test_what_says_nothing_of_the_lungs_is_indeterminate(lexicon: Lexicon, impression: str) -> None:
    assert label(lexicon, impression).label == INDETERMINATE


@pytest.mark.parametrize(
    "impression",
    [
        "新生儿胸片未见异常,两肺清晰",
        "仅侧位片。两肺清晰",
        "Lateral view only. Lungs are clear.",
        "Preliminary report: lungs are clear.",
    ],
)
def test_children_lateral_views_and_preliminary_texts_are_indeterminate(lexicon: Lexicon, impression: str) -> None:
    assert label(lexicon, impression).label == INDETERMINATE


def test_an_addendum_in_the_text_counts(lexicon: Lexicon) -> None:
    assert label(lexicon, "两肺心膈未见异常。补充报告:右侧气胸").tags == ("critical",)
    assert label(lexicon, "Normal chest. ADDENDUM: right pneumothorax.").tags == ("critical",)


def test_a_finding_that_only_the_description_tells(lexicon: Lexicon) -> None:
    assert label(lexicon, "心肺膈未见异常", "双肺野清晰,心影增大").label == FINDING
    strict = label(lexicon, "Normal chest.", "Mild cardiomegaly.", rule_set="strict")
    assert (strict.label, strict.rule) == (INDETERMINATE, "contradicted")


def test_words_that_are_not_known_are_not_guessed(lexicon: Lexicon) -> None:
    found = label(lexicon, "The lungs are clear with frobnication.")
    assert (found.label, found.rule, found.span) == (INDETERMINATE, "not-understood", "frobnication")
    assert label(lexicon, "There is XXXX in the right lung. The heart is normal.").label == INDETERMINATE


@pytest.mark.parametrize("text", ["", "  \n", "。", "1.", "..."])
def test_no_text_is_indeterminate(lexicon: Lexicon, text: str) -> None:
    found = label(lexicon, text, text)
    assert (found.label, found.rule) == (INDETERMINATE, "empty")


def test_several_tags_in_order_of_severity(lexicon: Lexicon) -> None:
    found = label(lexicon, "右侧气胸,左肺结节,主动脉硬化,PICC置管")
    assert found.tags == ("critical", "urgent", "minor", "device")
    assert found.span == "气胸"


@pytest.mark.parametrize(
    "unit",
    [
        "未见",
        "no ",
        ", and ",
        "not seen ",
        "心 肺 ",
        "(",
        "x-",
        "XXXX ",
        "a.b",
        "1.",
        "有 ",
        "no lung and ",
        "未见肺炎右",
    ],
)
def test_time_grows_with_the_text_and_not_faster(lexicon: Lexicon, unit: str) -> None:
    text = unit * (MAXIMUM_CHARACTERS // len(unit))
    start = time.perf_counter()
    label(lexicon, text)
    assert time.perf_counter() - start < 10


def test_a_megabyte_is_refused_at_once(lexicon: Lexicon) -> None:
    start = time.perf_counter()
    assert label(lexicon, "no pneumothorax, " * 60_000).rule == "too-long"
    assert time.perf_counter() - start < 0.1


def test_a_sites_own_lexicon_counts_and_has_its_own_version(tmp_path: Path) -> None:
    values = yaml.safe_load((lexicons.SHIPPED / "lexicon_zh.yaml").read_text(encoding="utf-8"))
    values["strict"]["impressions"].append("胸透阴性")
    (tmp_path / "lexicon_zh.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    own = lexicons.load(tmp_path)
    assert label(own, "胸透阴性", rule_set="strict").label == NO_FINDING
    assert own.version != lexicons.load().version


@pytest.mark.parametrize("content", ["- a", "strict: 1", "a: [", "normal: [no]"])
def test_a_broken_lexicon_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "lexicon_en.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="lexicon_en"):
        lexicons.load(tmp_path)


def test_an_empty_lexicon_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lexicon_"):
        lexicons.load(tmp_path)


@pytest.mark.parametrize(
    ("impression", "wanted"),
    [
        ("Heart is large. Lungs are clear.", FINDING),
        ("The heart is large, lungs clear", FINDING),
        ("The aorta is large. Lungs are clear.", FINDING),
        ("No large effusion. Lungs are clear.", NO_FINDING),
        ("The lungs are clear. There is no focal consolidation, a nodule is seen.", FINDING),
        ("The lungs are clear. No consolidation, an effusion on the left.", FINDING),
        # The other lung may be missing.
        ("Right lung is clear.", INDETERMINATE),
        ("左肺清晰", INDETERMINATE),
        ("右肺未见异常", INDETERMINATE),
    ],
)
def test_what_is_large_begins_anew_or_speaks_of_one_lung_is_not_clear(
    lexicon: Lexicon, impression: str, wanted: str
) -> None:
    assert label(lexicon, impression).label == wanted
