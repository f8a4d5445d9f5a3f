"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path, typer.Option("--config", envvar="CLEARFILM_CONFIG", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]
DEFAULT_CONFIG = Path("config.yaml")
