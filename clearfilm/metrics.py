"""What each process counts. Names follow Prometheus: base units, `_total`; a label is never an identifier or free text.

Every process counts for itself; its heartbeat adds the numbers up in the database (`db/processes.py`), where the web
pages read them for `/metrics`. So they go on after restarts, whichever process is asked.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

ASSOCIATIONS = Counter(
    "clearfilm_storescp_associations",
    "Association requests: accepted, denied, congested.",
    ["outcome"],
    registry=REGISTRY,
)
RECEIVED = Counter(
    "clearfilm_instances_received",
    "C-STORE requests by SOP class: stored, duplicate, own_result, refused.",
    ["sop_class", "outcome"],
    registry=REGISTRY,
)
JOBS = Counter(
    "clearfilm_job_attempts",
    "Tries of jobs: done, postponed, failed (for good), error (will be tried again).",
    ["kind", "outcome"],
    registry=REGISTRY,
)
INFERENCE = Histogram(
    "clearfilm_inference_seconds",
    "Time in the network for one film, its share of the micro-batch.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
    registry=REGISTRY,
)
SCORES = Histogram(
    "clearfilm_score",
    "Scores of analysed films, 0 to 1.",
    buckets=tuple(step / 10 for step in range(1, 10)),
    registry=REGISTRY,
)
DECISIONS = Counter("clearfilm_flags", "Conclusions by their answer.", ["decision"], registry=REGISTRY)
SENDS = Counter(
    "clearfilm_pacs_sends",
    "C-STORE of results: stored, refused, busy, unreachable.",
    ["peer", "outcome"],
    registry=REGISTRY,
)
TURNAROUND = Histogram(
    "clearfilm_turnaround_seconds",
    "From a study's last film received to its report stored at a destination.",
    buckets=(5, 10, 15, 20, 30, 60, 120, 300, 900, 3600),
    registry=REGISTRY,
)
VERDICTS = Counter("clearfilm_reader_verdicts", "Radiologists' answers to decisions.", ["verdict"], registry=REGISTRY)
LOGINS = Counter("clearfilm_logins", "Tries to log in to the web pages.", ["outcome"], registry=REGISTRY)
