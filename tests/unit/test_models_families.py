"""Records of families: which family loads what, and which records are refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from captrain.errors import ModelError
from captrain.models.families import FAMILIES, Family, family_of_type, import_object, joined_family, register_family
from captrain.settings.schema import ModelSettings

OWL = Family("owl", "zoo.owl:OwlCaptioner", {"owl": "zoo.owl:OwlModel"})


def test_a_registered_family_is_found_by_its_model_type() -> None:
    assert family_of_type("owl") is None
    register_family(OWL)
    try:
        register_family(OWL)
        assert family_of_type("owl") is OWL
    finally:
        del FAMILIES["owl"]


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (replace(OWL, name="git"), "there is another family named 'git'; choose another name"),
        (replace(OWL, checkpoints={"blip": "zoo.owl:OwlModel"}), "the model type 'blip' belongs to the family 'blip'"),
    ],
)
def test_what_belongs_to_another_family_is_refused(family: Family, message: str) -> None:
    before = dict(FAMILIES)
    with pytest.raises(ModelError, match=re.escape(message)):
        register_family(family)
    assert before == FAMILIES


@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_a_record_names_can_be_imported(name: str) -> None:
    family = FAMILIES[name]
    assert family.captioner_class().family == name == family.name
    for place in (*family.checkpoints.values(), *family.own_models):
        assert import_object(place).config_class.model_type
    assert {"lora", "full"} <= set(family.learning_rates)


def test_every_way_to_join_has_one_family() -> None:
    joins = ModelSettings.model_fields["join"].annotation.__args__  # type: ignore[union-attr]
    assert [joined_family(join).join for join in joins] == list(joins)
    assert sum(bool(family.join) for family in FAMILIES.values()) == len(joins)
