"""`clearfilm train`."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from clearfilm import config as configuration
from clearfilm.config import Config
from clearfilm.errors import ConfigurationError
from cli.terminal import say
from cli.training_record import recorded
from cli.watch import watching
from db.governance import RunOutcome
from training.cohort import load
from training.train import train
from worker.decoder import DecoderPool

_SECTIONS = ("training", "worker")


def run_training(
    config_path: Path,
    cohort: Path,
    out: Path,
    *,
    settings: list[str],
    films: Path | None,
    resume: bool,
    user: str | None,
) -> None:
    """Train on a cohort; the bundle is in the run folder then. Raises TrainingError."""
    config = override(configuration.load(config_path), settings)
    loaded = load(cohort, root=films)
    with recorded(config, loaded, out, user) as record:
        with watching() as watcher, DecoderPool(config) as decoder:
            bundle = train(loaded, out, config, decoder, resume=resume, watcher=watcher, begun=record.begin)
        record.end(RunOutcome.FINISHED, bundle=bundle)
    if bundle is not None:
        say(f"bundle: {bundle}")


def override(config: Config, settings: list[str]) -> Config:
    """The configuration with values of the command line.

    Parameters
    ----------
    config : Config
    settings : list of str
        ``training.key=value`` or ``worker.key=value``, values as in YAML.

    Raises
    ------
    ConfigurationError
        With every fault at once.
    """
    faults: list[str] = []
    values: dict[str, dict[str, object]] = {name: getattr(config, name).model_dump() for name in _SECTIONS}
    for setting in settings:
        place, equals, text = setting.partition("=")
        section, _, key = place.partition(".")
        if not equals or key not in values.get(section, {}):
            faults.append(f"--set {setting}: there is no such key of {' or '.join(_SECTIONS)}")
            continue
        try:
            values[section][key] = yaml.safe_load(text)
        except yaml.YAMLError:
            faults.append(f"--set {setting}: is not a YAML value")
    sections = {}
    for name in _SECTIONS:
        try:
            sections[name] = type(getattr(config, name)).model_validate(values[name])
        except ValidationError as error:
            faults += [f"{name}.{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
    if faults:
        raise ConfigurationError("; ".join(faults))
    return config.model_copy(update=sections)
