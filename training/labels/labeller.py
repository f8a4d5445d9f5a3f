"""The site's way of labelling, and the labels of the reports in the database."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from clearfilm.config import Reports
from db import reports
from db.session import Database
from training.labels import lexicon as lexicons
from training.labels.lexicon import Lexicon
from training.labels.rules import Label, RuleSet, label_report

_BATCH = 200


@dataclass(frozen=True)
class Labeller:
    """Lexicon and settings of a site."""

    lexicon: Lexicon
    rule_set: RuleSet = "wide"
    accept_no_acute: bool = False

    @property
    def version(self) -> str:
        """Changes with everything that can change a label; kept with each label and in each cohort."""
        return f"{self.lexicon.version}-{self.rule_set}{'-no_acute' if self.accept_no_acute else ''}"

    def label(self, findings: str, impression: str) -> Label:
        """Label one report (see `training.labels.rules.label_report`)."""
        return label_report(
            findings,
            impression,
            lexicon=self.lexicon,
            rule_set=self.rule_set,
            accept_no_acute=self.accept_no_acute,
        )


def from_config(config: Reports) -> Labeller:
    """The labeller that the configuration asks for. Raises ConfigurationError."""
    return Labeller(lexicons.load(config.lexicon), config.rule_set, config.no_acute == "no_finding")


def label_current(
    database: Database, labeller: Labeller, advance: Callable[[int], None] = lambda _number: None
) -> Counter[str]:
    """Label the current reports that have no label of this version.

    Parameters
    ----------
    database : Database
        Written in small units of work; what is done stays done.
    labeller : Labeller
    advance : callable
        Told how many more are done.

    Returns
    -------
    collections.Counter
        How many got which rule.
    """
    rules: Counter[str] = Counter()
    while True:
        with database.read() as session:
            batch = list(islice(reports.current(session, lexicon_version=labeller.version), _BATCH))
        if not batch:
            return rules
        labels = [(one, labeller.label(one.findings, one.impression)) for one in batch]
        with database.begin() as session:
            for one, label in labels:
                reports.set_label(
                    session,
                    one.report_id,
                    label=label.label.value,
                    rule=label.rule,
                    span=label.span,
                    tags=label.tags,
                    lexicon_version=labeller.version,
                )
        rules.update(label.rule for _, label in labels)
        advance(len(batch))
