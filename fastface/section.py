"""A part of the YAML -> checked, frozen values: what every section of the configuration is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the YAML: unknown keys and wrong types are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
