"""The configuration: `config.yaml`, overridden by `CLEARFILM_…` variables, frozen, unknown keys refused."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from clearfilm.alert_settings import Alerts
from clearfilm.errors import ConfigurationError
from clearfilm.model_settings import Promotion, Retraining
from clearfilm.oidc_settings import Oidc
from clearfilm.policy.settings import Policy
from clearfilm.section import Section as Section

ENVIRONMENT_PREFIX = "CLEARFILM_"
_DATABASE_URLS = "must be postgresql+psycopg://user@host/database, or sqlite:/// and a file"
Port = Annotated[int, Field(ge=1, le=65535)]
ListenPort = Annotated[int, Field(ge=0, le=65535, description="0: any free port (tests).")]


def check_ae_title(value: str) -> str:
    """The title without outer spaces. Raises ValueError if it is none (PS3.5 6.2, VR AE)."""
    # PS3.5 6.2: default repertoire without control characters and backslash; outer spaces do not count.
    title = value.strip(" ")
    if not 1 <= len(title) <= 16:
        raise ValueError("an AE title has 1 to 16 characters")
    if any(not 0x20 <= ord(character) <= 0x7E or character == "\\" for character in title):
        raise ValueError("an AE title has printable ASCII characters only, without backslash")
    return title


def check_host(value: str) -> str:
    """The host as it is. Raises ValueError if no name server can be asked for it (RFC 3490)."""
    try:
        value.encode("idna")
    except UnicodeError:
        raise ValueError("is neither a host name nor an address") from None
    return value


def _check_network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


AETitle = Annotated[str, AfterValidator(check_ae_title)]


def _check_database_url(value: str) -> str:
    # Imported here: most sites have no URL. The value is not repeated, it may hold a password.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError(_DATABASE_URLS) from None
    is_file = url.drivername == "sqlite" and not url.host and (url.database or ":memory:") != ":memory:"
    if not is_file and url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ValueError(_DATABASE_URLS)
    return value


def _check_viewer_url(value: str) -> str:
    try:
        filled = value.format(study_instance_uid="1.2", accession_number="A1")
    except (KeyError, IndexError, ValueError):
        raise ValueError("takes {study_instance_uid} and {accession_number} only") from None
    if not re.match(r"(?!javascript|data|file|vbscript)[a-z][a-z0-9+.-]*:", filled) or filled == value:
        raise ValueError("must be a URL with {study_instance_uid} or {accession_number}")
    return value


Network = Annotated[str, AfterValidator(_check_network)]
Host = Annotated[str, Field(min_length=1), AfterValidator(check_host)]
ViewerURL = Annotated[str, AfterValidator(_check_viewer_url)]
DatabaseURL = Annotated[str, AfterValidator(_check_database_url)]


class Database(Section):
    """Where the tables are."""

    url: DatabaseURL | None = None
    """SQLAlchemy URL of a PostgreSQL server or SQLite file; null: SQLite in the data folder."""
    backups: int = Field(7, ge=0, le=365)
    """Daily SQLite backups to keep; 0 switches them off. Back PostgreSQL up with its own tools."""


class Node(Section):
    """The listener's own address."""

    ae_title: AETitle = "CLEARFILM"
    """The title that senders must call."""
    address: str = "127.0.0.1"
    """Address to listen on; never all interfaces unless you say so."""
    port: ListenPort = 11112
    """TCP port; 11112 is registered for DICOM."""
    processes: int = Field(2, ge=1, le=16)
    """Listener processes that share the port (SO_REUSEPORT)."""


class Listener(Section):
    """Limits of the listener; reasons in the administrator's guide."""

    maximum_connections: int = Field(64, ge=1, le=400)
    """Open connections per process; more are closed at once."""
    maximum_connections_per_address: int = Field(32, ge=1, le=400)
    """Of these, from one address."""
    maximum_object_megabytes: int = Field(256, ge=1, le=2048)
    """Largest data set that is taken."""
    association_timeout_seconds: float = Field(10, gt=0)
    """From connect to a complete A-ASSOCIATE-RQ."""
    pdu_timeout_seconds: float = Field(10, gt=0)
    """From the first to the last byte of one PDU."""
    idle_timeout_seconds: float = Field(60, gt=0)
    """An association without a message is ended after this time."""
    echo_from_anyone: bool = False
    """Answer C-ECHO also to titles that are not listed as senders."""


class Sender(Section):
    """Who may send films. Everybody else is refused."""

    name: str = Field(min_length=1, max_length=64)
    """Shown in lists and logs."""
    ae_title: AETitle
    """Calling AE title; "*" takes any title from the addresses below."""
    addresses: tuple[Network, ...] = Field(min_length=1)
    """Addresses or networks (CIDR) that this sender calls from."""
    secondary_capture: bool = False
    """Take Secondary Capture images from this sender (film scanners)."""


class Destination(Section):
    """Where results go."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    """Short name; the database knows the destination by it."""
    ae_title: AETitle
    """AE title to call."""
    host: Host
    """Host name or address."""
    port: Port
    """TCP port."""
    connect_timeout_seconds: float = Field(5, gt=0)
    """Longest wait for a connection."""
    timeout_seconds: float = Field(60, gt=0)
    """Longest wait for one answer."""
    storage_commitment: bool = True
    """Ask for storage commitment where the destination offers it (PS3.4 J)."""
    retry_hours: float = Field(72, gt=0)
    """How long an unreachable destination is tried before the delivery fails visibly."""


class Study(Section):
    """When a study is concluded."""

    quiet_seconds: float = Field(10, ge=0, le=3600)
    """A study is concluded when no film has come for this long."""


class Worker(Section):
    """The analysing process."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    """auto: cuda when there is one."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the processor multiplies it natively, otherwise fp32."""
    batch_size: int = Field(8, ge=1, le=256)
    """Most films in one forward pass."""
    threads: int = Field(0, ge=0, le=256)
    """CPU threads of the network; 0: all cores."""
    decoders: int = Field(1, ge=1, le=32)
    """Decoder child processes."""
    decode_timeout_seconds: float = Field(20, gt=0)
    """Longest time for decoding one film."""
    decode_memory_megabytes: int = Field(2048, ge=512)
    """Address space of one decoder child."""
    unknown_age: Literal["analyse", "refuse"] = "analyse"
    """Films whose header gives neither age nor birth date."""
    unknown_view: Literal["analyse", "refuse"] = "refuse"
    """Films whose header names no projection; a lateral film among them would be read as a frontal one."""


class Heatmap(Section):
    """The map of evidence."""

    method: Literal["cam", "GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "EigenCAM"] = "cam"
    """cam: from the forward pass itself, equal to GradCAM here; the others are pytorch-grad-cam's."""


class Model(Section):
    """The first model."""

    bundle: Path = Path("models/reference")
    """Used at the first start only; later the database says which bundle is active."""


class Results(Section):
    """What is written into Secondary Captures and reports."""

    manufacturer: str = Field("Clearfilm", min_length=1, max_length=64)
    """Manufacturer (0008,0070) in results."""
    institution_name: str | None = Field(None, max_length=64)
    """Institution Name (0008,0080) in results, ASCII; null: left out."""
    secondary_capture_edge: int = Field(1024, ge=512, le=4096)
    """Longest side of the Secondary Capture, pixels."""


class Retention(Section):
    """How long films and results are kept; by time of reception."""

    days: int = Field(0, ge=0, le=36500)
    """Delete concluded and delivered studies after this many days; 0: keep all."""


class Disk(Section):
    """The disk guard. The larger of the two marks counts."""

    low_water_percent: float = Field(10, ge=0, le=90)
    """Refuse films (0xA700) below this share of free space …"""
    low_water_gigabytes: float = Field(5, ge=0)
    """… or below this much."""

    def low_water(self, total: int) -> int:
        """Free bytes below which films are refused, on a volume of `total` bytes."""
        return int(max(total * self.low_water_percent / 100, self.low_water_gigabytes * 1e9))


class Worklist(Section):
    """The web pages."""

    address: str = "127.0.0.1"
    """Address to listen on; beyond this machine only with TLS, here or at a proxy."""
    port: ListenPort = 8480
    """TCP port."""
    certificate: Path | None = None
    """PEM file with certificate and chain; null: no TLS here."""
    key: Path | None = None
    """PEM file with its key."""
    trusted_proxies: tuple[Network, ...] = ()
    """Reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    language: Literal["en", "zh"] = "en"
    """Before a user has chosen."""
    idle_minutes: float = Field(15, gt=0, le=1440)
    """A login ends when its user has done nothing for this long."""
    login_hours: float = Field(12, gt=0, le=168)
    """A login ends after this time in any case."""
    unread_days: int = Field(30, ge=1, le=3650)
    """Older studies without report and verdict do not count as unread."""
    viewer_url: ViewerURL | None = None
    """Opens a study in the PACS viewer; {study_instance_uid} and {accession_number} are filled in."""
    wall_shows: Literal["accession", "initials", "nothing"] = "accession"
    """By what the wall view names a patient."""
    oidc: Oidc = Oidc()

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Worklist:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        is_encrypted = self.certificate is not None or bool(self.trusted_proxies)
        if (self.oidc.public_url or "").startswith("https:") and not is_encrypted:
            raise ValueError("oidc.public_url: is https, so set certificate and key, or trusted_proxies")
        return self


class ReportColumns(Section):
    """Names of the columns of a CSV or Excel file; a column that the file lacks is passed over."""

    accession_number: str = "accession_number"
    """Key: this, or the next one, must be there in each row."""
    study_instance_uid: str = "study_instance_uid"
    """Key: (0020,000D)."""
    patient_id: str = "patient_id"
    """Must then agree with the study's."""
    findings: str = "findings"
    """Description."""
    impression: str = "impression"
    """Conclusion."""
    text: str = "text"
    """The whole report, split at its headings; for files without the two columns above."""
    status: str = "status"
    """final, preliminary, addendum or corrected; without the column: final."""
    reported_at: str = "reported_at"
    """Date and time; without a zone, this machine's."""


class ReportListener(Section):
    """HL7 v2 over MLLP: `clearfilm reports listen`."""

    address: str = "127.0.0.1"
    """Address to listen on."""
    port: ListenPort = 2575
    """Registered for HL7."""
    senders: tuple[Network, ...] = ()
    """Addresses or networks that may send; while there is none, the listener does not start."""
    encoding: Literal["utf-8", "gb18030", "latin-1"] = "utf-8"
    """For messages whose MSH-18 names none."""
    accession_field: str = Field("OBR-3", pattern=r"^(OBR|ORC)-\d{1,2}$")
    """Where the accession number is."""
    maximum_connections: int = Field(16, ge=1, le=256)
    """Open connections; more are closed at once."""
    maximum_message_kilobytes: int = Field(1024, ge=1, le=16384)
    """Larger messages are refused and the connection closed."""
    message_timeout_seconds: float = Field(10, gt=0)
    """From the first to the last byte of a message."""
    idle_timeout_seconds: float = Field(300, gt=0)
    """A connection without a message is closed after this time."""


class Reports(Section):
    """Radiologists' reports and their labels."""

    lexicon: Path | None = None
    """Folder with a site's own lexicon_*.yaml; null: the shipped one."""
    rule_set: Literal["wide", "strict"] = "wide"
    """strict: only whole impressions of the lexicon count as no finding (the paper)."""
    no_acute: Literal["indeterminate", "no_finding"] = "indeterminate"
    """What "no acute abnormality" alone is; it does not exclude old disease."""
    columns: ReportColumns = ReportColumns()
    listener: ReportListener = ReportListener()


class Training(Section):
    """How a model is trained. Defaults follow common fine-tuning practice; docs/training.md gives reasons."""

    init: str = Field("base", min_length=1)
    """Starting weights: base, imagenet (torchvision's, from its hub), random, a weights file, or a bundle folder."""
    train: Literal["head", "last_stage", "last_two_stages", "all"] = "last_stage"
    """What learns; the rest stays as it is. "all" wants a GPU and thousands of films."""
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    """auto: frozen, except from random weights."""
    linear_probe: bool = True
    """Start the linear layer from a logistic regression on the untrained network's features."""
    probe_strength: float = Field(1e-3, gt=0)
    """Inverse of that regression's L2 penalty, on standardised features."""
    edge: int = Field(224, ge=64, le=1024, multiple_of=32)
    """Side of the network's input, pixels. 448 gives a finer map at four times the cost."""
    epochs: int = Field(30, ge=1, le=1000)
    """Most passes over the training films."""
    warm_up_epochs: float = Field(1, ge=0)
    """The learning rate rises for so long, then falls as half a cosine."""
    patience: int = Field(5, ge=1)
    """Stop after so many epochs without a better value on the stop patients."""
    batch_size: int = Field(32, ge=1, le=4096)
    """Films in one optimizer step, over all processes."""
    micro_batch: int = Field(16, ge=1, le=1024)
    """Most films in one forward pass; gradients are added up until the batch is full."""
    learning_rate: float = Field(1e-4, gt=0, le=1)
    """Of the stages that learn."""
    head_learning_rate: float = Field(1e-3, gt=0, le=1)
    """Of the linear layer."""
    weight_decay: float = Field(0.05, ge=0, le=1)
    """AdamW's; not for batch norm and biases."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the pooled features."""
    mixup: float = Field(0.0, ge=0, le=10)
    """Parameter of the beta distribution that mixes pairs of films; 0: none."""
    average_decay: float = Field(0.999, ge=0, lt=1)
    """Exponential moving average of the weights, per step; the average is what is shipped."""
    balance_above: float = Field(0.6, ge=0.5, le=1)
    """Weight the rarer label if the other one's share is above this."""
    cached_variants: int = Field(6, ge=0, le=64)
    """Versions of each film whose frozen part is computed once, the film itself among them; 0: none, compute anew."""
    seed: int = Field(0, ge=0)
    """Of everything random."""
    sensitivities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.99, 0.98, 0.95, 0.9), min_length=1)
    """Guaranteed at the operating point: the first for which there are enough abnormal calibration patients."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Of that guarantee."""
    contour_share: float = Field(0.05, gt=0, lt=1)
    """Of normal calibration films that may show a contour."""
    gate_margin: float = Field(1.2, ge=1)
    """Room of the unusual-image gate for films of other devices."""
    tensorboard: bool = False
    """Write TensorBoard events into the run folder; needs the package tensorboard."""


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )
    data_folder: Path = Path("data")
    """Films, results and the database; relative to the configuration file."""
    database: Database = Database()
    node: Node = Node()
    listener: Listener = Listener()
    senders: tuple[Sender, ...] = ()
    """Who may send films; everybody else is denied."""
    destinations: tuple[Destination, ...] = ()
    """Where results are sent; without any they stay here."""
    study: Study = Study()
    worker: Worker = Worker()
    heatmap: Heatmap = Heatmap()
    model: Model = Model()
    results: Results = Results()
    retention: Retention = Retention()
    disk: Disk = Disk()
    worklist: Worklist = Worklist()
    reports: Reports = Reports()
    policy: Policy = Policy()
    training: Training = Training()
    promotion: Promotion = Promotion()
    retraining: Retraining = Retraining()
    alerts: Alerts = Alerts()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment wins over the file, whose values come in as keyword arguments.
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_are_unique(self) -> Config:
        for key in ("senders", "destinations"):
            names = [entry.name for entry in getattr(self, key)]
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{key}: each name may appear once, repeated: {', '.join(repeated)}")
        return self

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database in use."""
        return self.database.url or f"sqlite:///{self.data_folder / 'clearfilm.sqlite'}"


def load(path: Path) -> Config:
    """Read a configuration file and the environment.

    Relative paths in it are taken from the file's folder.

    Parameters
    ----------
    path : pathlib.Path
        The YAML file.

    Returns
    -------
    Config
        Frozen, with absolute paths.

    Raises
    ------
    ConfigurationError
        With every fault at once, each with its path.
    """
    faults, config = _checked(_read_yaml(path))
    if config is None:
        raise ConfigurationError(f"{path}: " + "; ".join(faults))
    return _with_absolute_paths(config, path.resolve().parent)


def try_text(text: str, folder: Path) -> tuple[list[str], Config | None]:
    """What would become of a file of this content.

    Parameters
    ----------
    text : str
        YAML.
    folder : pathlib.Path
        Where the file would be.

    Returns
    -------
    tuple of list of str and Config or None
        Every fault with its path, or the configuration as `load` would give it.
    """
    try:
        faults, config = _checked(_parse_yaml(text))
    except ConfigurationError as error:
        return [str(error)], None
    except RecursionError:
        return ["is nested too deeply"], None
    return faults, _with_absolute_paths(config, folder.resolve()) if config else None


def file_values(path: Path) -> dict[str, Any]:
    """The keys that a file sets, as they stand there. Raises ConfigurationError."""
    return _read_yaml(path)


def _checked(values: dict[str, Any]) -> tuple[list[str], Config | None]:
    """Every fault, or the configuration with paths as they were written."""
    faults = _unknown_variables()
    config = None
    try:
        config = Config(**values)
    except ValidationError as error:
        faults += [_describe(fault) for fault in error.errors()]
    except SettingsError as error:
        faults.append(_describe_variable(error))
    return faults, config if not faults else None


def _with_absolute_paths(config: Config, folder: Path) -> Config:
    return config.model_copy(
        update={
            "data_folder": (folder / config.data_folder).resolve(),
            "database": config.database.model_copy(update={"url": _find_database(folder, config.database.url)}),
            "model": config.model.model_copy(update={"bundle": _find_bundle(folder, config.model.bundle)}),
            "worklist": _find_certificates(folder, config.worklist),
            "alerts": _find_secrets(folder, config.alerts),
            "reports": config.reports.model_copy(
                update={"lexicon": config.reports.lexicon and (folder / config.reports.lexicon).resolve()}
            ),
        }
    )


def _find_certificates(folder: Path, worklist: Worklist) -> Worklist:
    """With absolute paths."""
    oidc = worklist.oidc
    secret, authority = oidc.client_secret_file, oidc.ca_file
    found = oidc.model_copy(
        update={
            "client_secret_file": secret and (folder / secret).resolve(),
            "ca_file": authority and (folder / authority).resolve(),
        }
    )
    return worklist.model_copy(
        update={
            "certificate": worklist.certificate and (folder / worklist.certificate).resolve(),
            "key": worklist.key and (folder / worklist.key).resolve(),
            "oidc": found,
        }
    )


def _find_secrets(folder: Path, alerts: Alerts) -> Alerts:
    """With absolute paths."""
    mail, webhook = alerts.mail, alerts.webhook
    password, secret = mail.password_file, webhook.secret_file
    return alerts.model_copy(
        update={
            "mail": mail.model_copy(update={"password_file": password and (folder / password).resolve()}),
            "webhook": webhook.model_copy(update={"secret_file": secret and (folder / secret).resolve()}),
        }
    )


def _find_bundle(folder: Path, bundle: Path) -> Path:
    """From the configuration's folder; a configuration elsewhere still finds the bundle that is shipped."""
    own, shipped = (folder / bundle).resolve(), (Path(__file__).parent.parent / bundle).resolve()
    return shipped if shipped.exists() and not own.exists() else own


def _find_database(folder: Path, url: str | None) -> str | None:
    """SQLite takes relative paths from the working folder, which each process may have another of."""
    prefix = "sqlite:///"
    return f"{prefix}{folder / url.removeprefix(prefix)}" if url and url.startswith(prefix) else url


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); name the file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid YAML") from error
    try:
        return _parse_yaml(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _parse_yaml(text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        raise ConfigurationError(f"is not valid YAML{line}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigurationError("must be a mapping of section names")
    return values


def _unknown_variables() -> list[str]:
    """pydantic-settings passes over variables that it does not know; a typo must not."""
    known = {name.upper() for name in Config.model_fields} | {"CONFIG", "CRASH_FOLDER"}
    return [
        f"environment variable {name}: there is no such key"
        for name in sorted(os.environ)
        if name.startswith(ENVIRONMENT_PREFIX) and name.removeprefix(ENVIRONMENT_PREFIX).split("__")[0] not in known
    ]


def _describe(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"]) or "configuration"
    if fault["type"] == "extra_forbidden":
        return f"{place}: there is no such key"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}"


def _describe_variable(error: SettingsError) -> str:
    """pydantic-settings reads the variable of a whole section as JSON."""
    named = re.search(r'field "(\w+)"', str(error))
    name = ENVIRONMENT_PREFIX + (named[1].upper() if named else "…")
    return f"environment variable {name}: is not valid JSON; set one key as {name}__KEY, or a list as JSON"
