"""A pydantic model -> a strict part of the YAML: what the configuration and the operators it lists are made of."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the YAML: unknown keys and wrong types are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
