"""Texts made of metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_memd.data import PseudoText, TemplateError


def test_a_sentence_is_there_where_its_columns_are():
    text = PseudoText(sections=("before", "record"))
    assert text({"organ": "colon", "class": "normal-cecum"}) == "An image of the colon. The finding is normal cecum."
    assert text({"organ": "colon", "size": "", "border": "sharp"}) == "An image of the colon. Its border is sharp."
    assert text({}) == ""


def test_the_default_knows_nothing_of_the_finding():
    known = {
        "organ": "colon",
        "class": "polyps",
        "size": "large",
        "colour": "red",
        "border": "sharp",
        "label": "abnormal",
    }
    assert PseudoText()(known) == "An image of the colon."


@given(st.text(), st.text())
def test_values_are_taken_as_they_are(organ, label):
    text = PseudoText()({"organ": organ, "class": label})
    assert (text == "") == (not organ.strip())
    if "{" in organ and organ.isalpha():
        assert organ in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("- a list", "mapping"),
        ("before: ['An image of {organ.__class__}.']", "no sentence"),
        ("before: ['An image of {organ!r}.']", "no sentence"),
        ("before: ['An image of {}.']", "no sentence"),
        ("before: ['An image of {organ.']", "no sentence"),
        ("before: [5]", "no sentence"),
        ("after: ['An image.']", "no section 'before'"),
        ("before: [", "no readable"),
    ],
)
def test_a_template_that_is_none_is_an_error_that_names_the_file(tmp_path, content, what):
    path = tmp_path / "text.yaml"
    path.write_text(content)
    with pytest.raises(TemplateError, match=f"text.yaml.*{what}"):
        PseudoText(path)


def test_a_missing_template_is_an_error(tmp_path):
    with pytest.raises(TemplateError, match=r"none\.yaml"):
        PseudoText(tmp_path / "none.yaml")
