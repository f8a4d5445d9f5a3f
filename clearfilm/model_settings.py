"""Sections of the configuration about the life of a model."""

import zoneinfo

from pydantic import Field, field_validator

from clearfilm.section import Section


class Promotion(Section):
    """What a model must show before it may become active: docs/training.md gives reasons."""

    auc_margin: float = Field(0.01, gt=0, le=0.2)
    """AUC against the active model: the interval's lower end must be above minus this."""
    sensitivity: float = Field(0.99, gt=0, lt=1)
    """Wanted at the operating point; the interval's lower end on test films must reach it."""
    specificity_margin: float = Field(0.03, gt=0, le=0.5)
    """Specificity against the active model, each at its own point: lower end above minus this."""
    calibration_error: float = Field(0.03, gt=0, lt=1)
    """Largest expected calibration error."""
    calibration_slope: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest slope of the calibration."""
    group_margin: float = Field(0.02, gt=0, le=0.5)
    """Largest fall of sensitivity in any group of films."""
    shortcut_auc: float = Field(0.75, gt=0.5, lt=1)
    """Largest AUC without looking at the lungs."""
    shadow_days: float = Field(14, ge=0)
    """Shortest time of silent reading."""
    shadow_studies: int = Field(500, ge=0)
    """Fewest studies read silently …"""
    shadow_abnormal: int = Field(150, ge=0)
    """… of which so many have a report with a finding."""
    shadow_share_margin: float = Field(0.1, gt=0, le=1)
    """Share of studies below the operating point against the evaluation's forecast."""


class Retraining(Section):
    """Training by the clock; it ends with a candidate, never with an active model."""

    enabled: bool = False
    """Start by the clock; `clearfilm retrain` works either way."""
    cron: str = "0 2 1 * *"
    """Minute, hour, day of month, month, day of week by name."""
    time_zone: str = "UTC"
    """Of these times, such as Asia/Shanghai."""
    minimum_new_films: int = Field(500, ge=0)
    """Fewest films with a report that came since the last training."""

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone such as Europe/Berlin") from None
        return value

    @field_validator("cron")
    @classmethod
    def _is_understood(cls, value: str) -> str:
        # Imported here: most sites keep the default.
        from apscheduler.triggers.cron import CronTrigger

        try:
            CronTrigger.from_crontab(value, timezone="UTC")
        except ValueError:
            raise ValueError("must be five fields such as 0 2 1 * *") from None
        if any(character.isdigit() for character in value.split()[4]):
            raise ValueError("write days of the week as mon to sun: programs number them differently")
        return value
