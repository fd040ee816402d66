"""A part of the YAML -> checked, frozen values: what every section of the configuration is."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A part of the YAML: unknown keys and wrong types are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class TaskSection(Section):
    """The section of a task, which says what kind of model comes out and what it learns from."""

    kind: ClassVar[str] = "recognition"
    """As in the card of its models: a row of fastface.kinds.KINDS."""
    from_embeddings: ClassVar[bool] = False
    """Learns from data.embeddings, not from images."""


def _as_several(value: Any) -> Any:
    """Take one path for a list of one."""
    return (value,) if isinstance(value, str | Path) else tuple(value) if isinstance(value, list) else value


Folders = Annotated[tuple[Path, ...], BeforeValidator(_as_several)]  # one folder, or a list of them


def _as_texts(value: Any) -> Any:
    """Take one value for a list of one, and numbers for the text that people write."""
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one) if isinstance(one, str | int | float) else one for one in several)


ColumnValues = dict[str, Annotated[tuple[str, ...], BeforeValidator(_as_texts)]]  # column -> names of its values
