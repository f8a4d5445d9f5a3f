"""The three answers that Clearfilm gives about a study, in the words that everybody sees."""

import enum


class Decision(enum.StrEnum):
    """The answer for one study. There is no fourth, and none of them says "normal"."""

    NO_SIGNIFICANT_FINDING = "no_significant_finding"
    SIGNIFICANT_FINDING = "significant_finding"
    NOT_ANALYSED = "not_analysed"

    @property
    def words(self) -> str:
        """As shown to people: "no significant finding", "significant finding", "not analysed"."""
        return self.value.replace("_", " ")

    @property
    def series_description(self) -> str:
        """Series Description (0008,103E) of the structured report; PACS rules match on it."""
        return f"AI CXR triage: {self.words.upper()}"
