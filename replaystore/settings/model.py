"""The table as a model of pydantic-settings, which reads and checks values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, create_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from replaystore.errors import InvalidArgument
from replaystore.server.address import parse_address
from replaystore.settings.describing import PREFIX, SETTINGS, Setting
from replaystore.settings.table import Address, Size


class _OnlyWhatIsGiven(BaseSettings):
    """Validates what it is given and looks nowhere by itself: `loading` asks the sources, and remembers which said what."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _address(value: str) -> str:
    if value:
        try:
            parse_address(value)
        except InvalidArgument as error:
            raise ValueError(str(error)) from None
    return value


def _place(value: Any) -> Any:
    if value == "":
        return None
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


KINDS: dict[Any, Any] = {
    Path: Annotated[Path | None, BeforeValidator(_place)],
    Address: Annotated[str, AfterValidator(_address)],
    Size: ByteSize,
}
"""How values of the table's own kinds are read; ``~/`` is the home folder also where no shell has looked at it."""


def _field(setting: Setting) -> Any:
    shown = setting.shown
    bounds = {"ge": shown.least, "gt": shown.above, "le": shown.most}
    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    return Annotated[KINDS.get(setting.kind, setting.kind), Field(**given)], setting.default


MODEL: type[BaseSettings] = create_model(
    "MODEL", __base__=_OnlyWhatIsGiven, **{name: _field(setting) for name, setting in SETTINGS.items()}
)
"""Keywords to checked values; raises pydantic's ValidationError."""
