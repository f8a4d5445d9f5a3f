"""`clearfilm conformance`: the DICOM conformance statement, generated from what the code negotiates, answers and makes.

Chapters follow the template of PS3.2 Annex N.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydicom.charset import python_encoding
from pydicom.uid import UID, DigitalXRayImageStorageForProcessing
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from clearfilm import __version__
from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.dicom import codecs, header, rehearsal, scu, statuses, uids
from clearfilm.triage import Decision
from cli import conformance_samples as samples
from db import deliveries
from storescp import hardening, policy
from worker import commitment as worker_commitment
from worker import deliver
from worker.results import secondary_capture, structured_report

STATUSES: Final[dict[int, str]] = {
    statuses.SUCCESS: "Stored durably: file and database rows survive a power cut. Also sent for a film that is "
    "stored already with the same bytes, and for an own result that was routed back (which is not stored).",
    statuses.OUT_OF_RESOURCES: "Free disk space is below the low-water mark, the disk refused to write, the "
    "database is locked or away, or receiving was paused. The same object is taken later.",
    statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "SOP Class UID or SOP Instance UID of command and data set differ.",
    statuses.CANNOT_UNDERSTAND: "The data set is not sound: a length leads outside, nesting or number of elements "
    "exceed the limits, an identifying UID is missing, repeated or malformed.",
    statuses.SOP_CLASS_NOT_SUPPORTED: "The SOP class of the command differs from that of the presentation context.",
    statuses.INVALID_SOP_INSTANCE: "The SOP Instance UID is not a UID.",
    statuses.PROCESSING_FAILURE: "Internal error; the Error Comment names an incident number that is in the log.",
}
_REJECTIONS: Final = (policy.CALLED_TITLE_UNKNOWN, policy.CALLING_TITLE_UNKNOWN, policy.CONGESTION, policy.PAUSED)
_UNUSED_SERVICES: Final = (
    "Query/Retrieve",
    "Modality Worklist",
    "Modality Performed Procedure Step",
    "Unified Procedure Step",
    "Instance Availability Notification",
    "Print",
)


def print_statement(config_path: Path | None) -> None:
    """Print the statement in Markdown: for a node with this configuration, or with default values."""
    config = configuration.load(config_path) if config_path else None
    sys.stdout.write(statement(config))


def statement(config: Config | None = None) -> str:
    """The conformance statement.

    Parameters
    ----------
    config : Config, optional
        Titles, peers and limits of one site; otherwise the defaults.

    Returns
    -------
    str
        Markdown; a function of the code and `config` alone.
    """
    config = config or Config.model_construct()
    made = samples.build_samples()
    chapters = [
        _title(),
        _overview(),
        _contents(),
        _introduction(),
        _implementation_model(config),
        _services(config),
        _configuration(config),
        _communication(config),
        _security(config),
        _annexes(made),
    ]
    return "\n\n".join(chapters) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _names(identifiers: Iterable[str]) -> list[tuple[str, str]]:
    return [(UID(uid).name, f"`{uid}`") for uid in identifiers]


def _transfer_syntaxes() -> list[str]:
    return [*codecs.UNCOMPRESSED, *codecs.CODECS]


def _title() -> str:
    return f"""# DICOM Conformance Statement

Product: Clearfilm {__version__}, triage of chest radiographs. **Research use, not a medical device.**

This file is printed by `clearfilm conformance`; `clearfilm conformance --config FILE` prints it with the titles,
peers and limits of one site."""


def _overview() -> str:
    received = [(name, uid, "receives", "no") for name, uid in _names(policy.FILM_CLASSES)]
    captures = [
        (name, uid, "receives from senders that are configured for it", "yes")
        for name, uid in _names([policy.SECONDARY_CAPTURE])
    ]
    reports = [(name, uid, "no", "yes") for name, uid in _names(structured_report.SOP_CLASSES)]
    services = [
        ("Verification (C-ECHO)", "yes", "yes"),
        ("Storage (C-STORE)", "yes", "yes"),
        ("Storage Commitment Push Model", "yes", "no"),
        *((name, "no", "no") for name in _UNUSED_SERVICES),
    ]
    return f"""## 1 Overview

Clearfilm receives chest radiographs, decides on "no significant finding" or "significant finding" with a neural
network, and sends a heatmap and a structured report back into the same study. A film that it does not judge is
reported as "not analysed" with the reason. It never changes, moves or deletes anything at its peers.

### 1.1 Content and transfer

{_table(["SOP class", "UID", "receives (SCP)", "creates and sends (SCU)"], received + captures + reports)}

{UID(DigitalXRayImageStorageForProcessing).name} is stored and never analysed.
Received Secondary Captures are analysed only if they say by their header that they are adult frontal chest films.

#### 1.1.1 Structured report root templates

{
        _table(
            ["SOP class", "root template"],
            [(name, "TID 1500 Measurement Report") for name, _ in _names(structured_report.SOP_CLASSES)],
        )
    }

### 1.2 DIMSE services

{_table(["service", "SCU", "SCP"], services)}

### 1.3 Web services

None.

### 1.4 Media

None. Stored files are internal to the product.

### 1.5 Real-time video

None.

### 1.6 De-identification profiles

None.

### 1.7 Character sets

Identifying text goes from the film into the results byte for byte, together with Specific Character Set (0008,0005);
it is not decoded and encoded again, so every character set is kept, including ones that are wrong or unknown.
The product's own text is ASCII. For lists and logs text is decoded with these defined terms:

{", ".join(f"`{term}`" for term in _defined_terms())}"""


def _defined_terms() -> list[str]:
    return [term for term in python_encoding if term.startswith(("ISO", "GB"))]


def _contents() -> str:
    return """## 2 Contents

1 Overview · 2 Contents · 3 Introduction · 4 Implementation model · 5 Service and interoperability description ·
6 Configuration · 7 Network and media communication details · 8 Security · Annex A Object definitions ·
Annex B Structured report content · Annex C Attribute mapping · Annex D Code set usage"""


def _introduction() -> str:
    return """## 3 Introduction

### 3.1 Audience

PACS administrators and integrators who connect modalities, routers and archives.

### 3.2 Remarks

This statement describes one side of a connection. That two statements fit together does not prove that two systems
work together; try the connection with `clearfilm check --echo` and `clearfilm send`.

### 3.3 Terms

AE: application entity. SCU, SCP: service class user, provider. SC: Secondary Capture. SR: structured report.
TID, CID: template and context group of PS3.16.

### 3.4 References

DICOM PS3: https://www.dicomstandard.org/current. Numbers such as PS3.4 B.2.3 name a part and a section of it."""


def _implementation_model(config: Config) -> str:
    return f"""## 4 Implementation model

### 4.1 Data flow

```
modality, PACS router ── C-STORE, C-ECHO ──▶ storescp ──▶ database ──▶ worker: analyse, conclude
                                                                          │
PACS ◀── C-STORE: SC, then SR · N-ACTION, N-EVENT-REPORT ── deliver ◀─────┘
```

### 4.2 Application entities

One AE title, `{config.node.ae_title}`, for all of them.

{
        _table(
            ["process", "role", "does"],
            [
                ("storescp", "acceptor", "C-ECHO and C-STORE SCP; several processes may share the port"),
                ("deliver", "initiator", "C-STORE SCU and Storage Commitment SCU"),
                ("check, send", "initiator", "C-ECHO and C-STORE SCU on an administrator's command"),
            ],
        )
    }

### 4.3 Sequence

1. A film is stored and acknowledged, then analysed at once.
2. {config.study.quiet_seconds:g} seconds after the study's last film it is concluded: the worst of its films decides.
3. Each destination gets the Secondary Captures, then one structured report, on one association.
4. Storage commitment is asked for, on another association, where the destination accepts the SOP class.
5. A later film opens the study again; the next report names the earlier one in Predecessor Documents Sequence."""


def _services(config: Config) -> str:
    return "\n\n".join(
        [
            "## 5 Service and interoperability description",
            _storage_scp(config),
            _storage_scu(config),
            _commitment(),
        ]
    )


def _storage_scp(config: Config) -> str:
    return f"""### 5.1 Verification SCP

C-ECHO is answered with 0x0000{"" if config.listener.echo_from_anyone else ", to listed senders and destinations only"}.
Transfer syntaxes: {", ".join(name for name, _ in _names(_verification_syntaxes()))}.

### 5.2 Storage SCP

SOP classes: table 1.1. Level 2 (full): all attributes are stored, private ones included; bytes are stored as received.

Transfer syntaxes. A compressed one is accepted if its decoder has just decoded a known picture at the start of the
process:

{_table(["transfer syntax", "UID"], _names(_transfer_syntaxes()))}

Statuses of the C-STORE response; a failure carries Error Comment (0000,0902):

{_table(["status", "meaning"], [(f"0x{status:04X}", text) for status, text in STATUSES.items()])}

A film is never refused because it cannot be analysed: it is stored, and the study's report says why it was not.
The same SOP Instance UID with other bytes is stored beside the first one, and both are marked."""


def _verification_syntaxes() -> list[str]:
    [context] = policy.supported_contexts(policy.Admission())
    return [str(uid) for uid in context.transfer_syntax or ()]


def _storage_scu(config: Config) -> str:
    first, longest = deliver.FIRST_BACKOFF.total_seconds(), deliver.LONGEST_BACKOFF.total_seconds()
    hours = sorted({entry.retry_hours for entry in config.destinations}) or [72]
    waits = " or ".join(f"{value:g}" for value in hours)
    answers = [
        ("0x0000", "stored"),
        ("0xB000 to 0xBFFF, 0x0107, 0x0116", "warning: stored"),
        ("0xA700 to 0xA7FF, no answer, association lost", "tried again with the same bytes"),
        (
            "any other",
            f"refused; tried {deliveries.MAXIMUM_REFUSALS} times, then the delivery has visibly failed",
        ),
    ]
    return f"""### 5.3 Storage SCU

SOP classes proposed: {", ".join(name for name, _ in _names(rehearsal.RESULT_CLASSES))}.
Transfer syntaxes proposed for each: {", ".join(name for name, _ in _names(map(str, scu.UNCOMPRESSED)))}.
Results are made in Explicit VR Little Endian.

The report has the same content in {len(rehearsal.REPORT_PREFERENCE)} SOP classes; a destination gets the first
that it accepts, in this order.

{_table(["status of the destination", "consequence"], answers)}

Waiting time between tries: {first:g} seconds, doubled up to {longest / 60:g} minutes, with jitter, for {waits} hours.
After a failed connection nothing else is tried at that destination until the waiting time is over. A resend sends the
same bytes under the same UIDs. An idle association is released after {deliver.IDLE_RELEASE_SECONDS:g} seconds."""


def _commitment() -> str:
    name, hours = UID(StorageCommitmentPushModel).name, worker_commitment.SILENCE.total_seconds() / 3600
    stored, unreadable = f"0x{statuses.SUCCESS:04X}", f"0x{statuses.PROCESSING_FAILURE:04X}"
    most, seconds = worker_commitment.MOST_OBJECTS, worker_commitment.REPORT_SECONDS
    return f"""### 5.4 Storage Commitment SCU

{name} (`{StorageCommitmentPushModel}`), unless `storage_commitment: false` is set for the destination.
N-ACTION type 1 goes out on an association of its own, for at most {most} objects that were sent since the
last request; its Transaction UID is new for each request. The N-EVENT-REPORT is awaited on the same association for
{seconds:g} seconds. A report on an association that the destination opens is taken
as well: under its configured title, from the address of its configured host, with SCP role selection or without.
The report is answered with {stored} after it is in the database, with {unreadable} if it cannot be read.

Objects that the destination reports as failed are sent again; the third failure is final.
Silence is no failure: without a report the request is repeated after {hours:g} hour.
Nothing is deleted because it was committed."""


def _configuration(config: Config) -> str:
    senders = [
        (entry.name, f"`{entry.ae_title}`", ", ".join(entry.addresses), "yes" if entry.secondary_capture else "no")
        for entry in config.senders
    ]
    destinations = [
        (entry.name, f"`{entry.ae_title}`", f"{entry.host}:{entry.port}", "yes" if entry.storage_commitment else "no")
        for entry in config.destinations
    ]
    node = config.node
    peers = [
        _table(["sender", "AE title", "addresses", "Secondary Capture"], senders)
        if senders
        else "No senders are configured: every association is rejected.",
        _table(["destination", "AE title", "address", "storage commitment"], destinations)
        if destinations
        else "No destinations are configured.",
    ]
    return f"""## 6 Configuration

AE title `{node.ae_title}`, address {node.address}, TCP port {node.port}.
All keys are explained in the [administrator's guide](administration.md).

{peers[0]}

{peers[1]}"""


def _communication(config: Config) -> str:
    listener, processes = config.listener, config.node.processes
    limits = [
        ("open associations as acceptor", f"{listener.maximum_connections} in each of {processes} processes"),
        ("of these from one address", listener.maximum_connections_per_address),
        ("associations as initiator", "2 per destination: results, storage commitment"),
        ("maximum PDU, both directions", f"{hardening.MAXIMUM_PDU} bytes"),
        ("command set", f"{hardening.MAXIMUM_COMMAND_SET} bytes"),
        ("data set", f"{listener.maximum_object_megabytes} MB"),
        ("elements of a data set", header.MAXIMUM_ELEMENTS),
        ("nesting of sequences", header.MAXIMUM_DEPTH),
        ("from connect to the complete A-ASSOCIATE-RQ", f"{listener.association_timeout_seconds:g} s"),
        ("one PDU", f"{listener.pdu_timeout_seconds:g} s"),
        ("one message", f"{hardening.MESSAGE_SECONDS:g} s"),
        ("silence on an association", f"{listener.idle_timeout_seconds:g} s"),
    ]
    rejections = [(f"{reason.result}/{reason.source}/{reason.diagnostic}", reason.reason) for reason in _REJECTIONS]
    return f"""## 7 Network and media communication details

DICOM upper layer over TCP/IP (PS3.8). Application context name `1.2.840.10008.3.1.1.1`.

{
        _table(
            ["identification", "value"],
            [
                ("Implementation Class UID", f"`{uids.IMPLEMENTATION_CLASS_UID}`"),
                ("Implementation Version Name", f"`{uids.IMPLEMENTATION_VERSION_NAME}`"),
            ],
        )
    }

{_table(["limit", "value"], limits)}

A connection beyond the limits is closed; a peer that breaks the protocol or a limit of size is aborted (A-ABORT).

{_table(["A-ASSOCIATE-RJ: result/source/reason", "when"], rejections)}

{policy.CONGESTION.reason.capitalize()} means that the disk is nearly full; modalities may try again later. While an
administrator has paused receiving, associations that offer films are rejected in the same way; C-ECHO is answered.

Asynchronous operations window: not negotiated, one operation at a time. SOP Class Extended and Common Extended
Negotiation: none. Role selection: none. User identity: not asked for, and not looked at.

Media: none."""


def _security(config: Config) -> str:
    echo = "anybody who calls the right title" if config.listener.echo_from_anyone else "listed senders"
    return f"""## 8 Security

Denied by default: an association is accepted if the called AE title is ours and calling AE title and address are
those of a listed sender. C-ECHO is answered to {echo}. Denials are logged and audited.

Secure transport connection profiles (TLS): none; the product belongs into a protected network, or behind a tunnel.
Digital signatures, encrypted objects: none. Audit trail: in the product's own database, each record chained to the one
before by a hash; no messages of PS3.15 A.5 are sent. Logs hold UIDs, never names or IDs of patients.

Received bytes are decoded in a child process with limits of time and memory. Files are stored under random names."""


def _annexes(made: samples.Samples) -> str:
    return "\n\n".join([_annex_objects(made), _annex_content(made), _annex_mapping(), _annex_codes(made)])


def _annex_objects(made: samples.Samples) -> str:
    tables = [
        _table(
            ["attribute", "tag", "VR", "present", "value"],
            [
                (entry.name, entry.tag, entry.vr, entry.presence, entry.value)
                for entry in samples.attributes(made.full_source, *objects)
            ],
        )
        for objects in (made.captures, made.reports)
    ]
    return f"""## Annex A Object definitions

"From the film": copied, bytes unchanged; an attribute that is always present is empty if the film has none (Lossy
Image Compression: `00`). "Generated": made by the product. UIDs are `2.25.` and the decimal form of a UUID that
follows from the films' bytes, the model, the SOP class and the revision: the same input and model give the same UIDs.

### A.1 Secondary Capture Image

One for each analysed film, series number {secondary_capture.SERIES_NUMBER}. Contours of the heatmap are drawn where
the evidence passes the model's threshold; nothing is drawn on films below the operating point.

{tables[0]}

### A.2 Structured report

One for each conclusion, series number {structured_report.SERIES_NUMBER}. Shown as
{UID(structured_report.SOP_CLASSES[0]).name}; the other SOP classes differ in their UIDs alone. From the second
revision on, Predecessor Documents Sequence (0040,A360) names the report that was sent before.

{tables[1]}"""


def _annex_content(made: samples.Samples) -> str:
    concepts = ("Level of Significance", "CAD Processing and Findings Summary", "Priority", "Finding")
    answers = [
        (name, f"`{report.SeriesDescription}`", *(samples.coded_value(report, concept) or "-" for concept in concepts))
        for name, report in made.answers.items()
    ]
    tree = "\n".join(samples.content_lines(made.reports[0]))
    return f"""## Annex B Structured report content

PACS rules can match the Series Description: it is exactly one of
{", ".join(f"`{decision.series_description}`" for decision in Decision)}.

{_table(["answer", "Series Description", *concepts], answers)}

Low priority only where the triage policy tags the study for later, otherwise Normal priority. In the stages off and
shadow of the policy nothing is sent, see [the triage policy](triage-policy.md#what-goes-to-the-pacs).

A study of one film above the operating point. The image library is left out for films whose size or orientation is
unknown; the algorithm and probability for films that were not analysed.

```
{tree}
```"""


def _annex_mapping() -> str:
    rows = [
        (
            "RequestedProcedurePriority (0040,1003), else StudyPriorityID (0032,000C)",
            "order of analysis: STAT first, then HIGH, URGENT and ASAP, then others; whether the study may be tagged",
        ),
        (
            "location, department, service, reasons, diagnoses, history, comments; manufacturer, model, serial number",
            "whether the study may be tagged for later; not in the product",
        ),
        (
            "RequestAttributesSequence (0040,0275), AccessionNumber (0008,0050)",
            "Referenced Request Sequence of the report, Request Attributes Sequence of the Secondary Capture",
        ),
        (
            "Manufacturer and other equipment attributes",
            "Contributing Equipment Sequence, purpose Acquisition Equipment",
        ),
        (
            "ViewPosition, PatientOrientation, codes of view and region, descriptions, age, body part",
            "decide whether a film is analysed; see the administrator's guide",
        ),
    ]
    return f"""## Annex C Attribute mapping

{_table(["in the film", "in the product"], rows)}"""


def _annex_codes(made: samples.Samples) -> str:
    objects = [*made.captures, *made.answers.values()]
    uses = sorted({use for ds in objects for use in samples.code_uses(ds)})
    return f"""## Annex D Code set usage

All codes of results; none are configurable, none are private.

{_table(["where", "value", "scheme", "meaning"], [(u.place, f"`{u.value}`", u.scheme, u.meaning) for u in uses])}"""
