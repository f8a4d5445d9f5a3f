"""The section `policy` of the configuration."""

import hashlib
import json
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from clearfilm.policy.words import normalise
from clearfilm.section import Section

RULES_VERSION: Final = "2"
"""Grows with every change of a rule in the code."""


def _check_word(value: str) -> str:
    if not normalise(value).removesuffix("*").strip():
        raise ValueError("a word must have a letter")
    return value


Word = Annotated[str, Field(max_length=64), AfterValidator(_check_word)]
Minutes = Annotated[float, Field(gt=0, le=30 * 24 * 60)]


class Location(Section):
    """A place with a longest wait of its own."""

    name: str = Field(min_length=1, max_length=64)
    """Shown with the reason."""
    words: tuple[Word, ...] = Field(min_length=1)
    """Of ward, department, requesting service or description; one suffices."""
    maximum_wait_minutes: Minutes
    """Instead of the general one; if several places fit, the shortest counts."""


class Policy(Section):
    """Which studies may be read later; see docs/triage-policy.md."""

    stage: Literal["off", "shadow", "supervised"] = "supervised"
    """At the first start only; later the database says which stage it is."""
    maximum_wait_minutes: Minutes = 240
    """A study that is to be read later returns to its place after this time from its first film."""
    locations: tuple[Location, ...] = ()
    """Places with another longest wait."""
    routine_orders: tuple[Word, ...] = (
        *("routine", "R", "normal", "medium", "low", "elective"),
        *("常规", "常規", "普通", "平诊", "平診"),
    )
    """Priorities of an order that mean routine; any other one that is stated keeps a study at its place."""
    guarded_locations: tuple[Word, ...] = (
        *("ICU", "CCU", "ITU", "HDU", "intensive care", "critical care", "high dependency"),
        *("ED", "ER", "A&E", "emergency", "casualty", "resus", "trauma"),
        *("portable", "bedside", "mobile"),
        *("重症", "监护", "監護", "急诊", "急診", "抢救", "搶救", "床旁", "床边", "床邊"),
    )
    """Words in ward, department, requesting service or description: these studies are never lowered."""
    red_flags: tuple[Word, ...] = (
        *(
            "haemoptysis",
            "hemoptysis",
            "coughing blood",
            "trauma",
            "injur*",
            "fracture*",
            "stab",
            "stabbing",
            "gunshot",
        ),
        *("tumour*", "tumor*", "cancer*", "carcinoma*", "malignan*", "metasta*", "lymphoma", "mass", "nodule*"),
        *("postop", "post op", "post operative", "postoperative", "post surgery", "after surgery"),
        *("line check", "line position", "line placement", "tube check", "tube position", "tube placement"),
        *("central line", "catheter*", "CVC", "PICC", "NGT", "NG tube", "ETT", "endotracheal", "intubat*"),
        *("chest drain*", "chest tube*", "pneumothorax", "tuberculosis", "TB", "foreign body", "aspiration", "sepsis"),
        *("咯血", "咳血", "外伤", "外傷", "骨折", "车祸", "車禍", "坠落", "墜落"),
        *("肿瘤", "腫瘤", "癌", "占位", "肿块", "腫塊", "结节", "結節", "转移", "轉移", "淋巴瘤"),
        *("术后", "術後", "手术后", "置管", "插管", "导管", "導管", "胃管", "引流"),
        *("气胸", "氣胸", "结核", "結核", "异物", "異物", "误吸", "誤吸", "休克"),
    )
    """Words in the request: these studies are never lowered. A star at the end takes any ending."""
    released_senders: tuple[str, ...] = ("demo",)
    """Senders whose devices need no release; `demo` is the one of the shipped configuration."""
    blind_share: float = Field(0.03, ge=0, le=0.5)
    """Of the tagged studies that are shown to nobody as such, so that agreement can be measured."""
    blind_days: int = Field(7, ge=1, le=90)
    """The answer about such a study is shown and sent after so many days, also if no report has come."""
    target_miss_rate: float | None = Field(None, gt=0, lt=1)
    """Of the studies with a finding, the share that may be tagged; null: what the bundle's guarantee leaves."""
    alarm_confidence: float = Field(0.95, ge=0.5, lt=1)
    """That the share is really above the target when the policy steps down, over a whole period."""
    alarm_period_days: int = Field(180, ge=7, le=3650)
    """The count begins anew after so many days, so that good years do not hide bad weeks."""

    @property
    def version(self) -> str:
        """Version of the rules, and digest of the settings that they work with."""
        return f"{RULES_VERSION}-{self.digest[:12]}"

    @property
    def digest(self) -> str:
        """SHA-256 of all settings but the stage of the first start."""
        settings = self.model_dump(mode="json", exclude={"stage"})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
