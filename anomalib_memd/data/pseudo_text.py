"""Texts made of metadata, by a template."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

from anomalib_memd.files import read_yaml

TEMPLATE = Path(__file__).with_name("pseudo_text.yaml")
"""The template that is used where none is given."""


class TemplateError(ValueError):
    """A template that cannot be used."""


class PseudoText:
    """Fills the sentences of a template with what is known of an image.

    Args:
        template: YAML file: lists of sentences under the names of sections, columns in braces.
        sections: Names of the sections that are used, in their order.

    Raises:
        TemplateError: If the file is no such template, or lacks a section.
    """

    def __init__(self, template: str | Path = TEMPLATE, sections: Sequence[str] = ("before",)) -> None:
        path = Path(template)
        content = read_yaml(path, "template of texts", TemplateError)
        if not isinstance(content, dict):
            msg = f"{path}: a template of texts is a mapping of sections, each a list of sentences."
            raise TemplateError(msg)
        absent = [name for name in sections if name not in content]
        if absent:
            msg = f"{path} has no section '{absent[0]}'; it has {', '.join(map(str, content)) or 'none'}."
            raise TemplateError(msg)
        self.sentences: list[tuple[str, list[str]]] = []
        for name in sections:
            for sentence in content[name] or []:
                self.sentences.append((sentence, _columns(sentence, path)))

    def __call__(self, facts: Mapping[str, str]) -> str:
        """The text of one image.

        Args:
            facts: Values by their columns.

        Returns:
            The sentences whose columns all have a value; empty if there is none.
        """
        known = {name: value for name, value in facts.items() if str(value).strip()}
        return " ".join(
            sentence.format_map({name: str(known[name]).replace("-", " ").replace("_", " ") for name in columns})
            for sentence, columns in self.sentences
            if all(name in known for name in columns)
        )


def _columns(sentence: object, path: Path) -> list[str]:
    """Names of the columns of a sentence. Anything but a plain name in the braces is refused."""
    try:
        fields = [part[1:] for part in Formatter().parse(str(sentence)) if part[1] is not None]
    except ValueError:
        fields = [("", "", None)]
    if isinstance(sentence, str) and all(name.isidentifier() and not form and not turn for name, form, turn in fields):
        return [str(name) for name, _, _ in fields]
    example = "'An image of the {organ}.'"
    msg = f"{path}: {sentence!r} is no sentence with names of columns in braces, such as {example}"
    raise TemplateError(msg)
