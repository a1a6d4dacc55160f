"""The prompts: what normal and abnormal tissue is called."""

from pathlib import Path

from anomalib_memd.files import read_yaml

PROMPTS = Path(__file__).with_name("prompts.yaml")
"""The prompts that are used where none are given."""

STATES = ("normal", "abnormal")


class PromptError(ValueError):
    """A file of prompts that cannot be used."""


def read_prompts(path: str | Path = PROMPTS) -> dict[str, list[str]]:
    """Read prompts, and put organs into states and states into templates.

    Args:
        path: YAML file with lists of ``organs``, of ``normal`` and ``abnormal`` states (which may name ``{organ}``),
            and of ``templates``, which name ``{state}``.

    Returns:
        All sentences of each of :data:`STATES`.

    Raises:
        PromptError: If the file is no such file.
    """
    path = Path(path)
    content = read_yaml(path, "prompts", PromptError)
    parts = {}
    for name in ("organs", *STATES, "templates"):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, list) or not part or not all(isinstance(text, str) and text.strip() for text in part):
            msg = f"{path}: prompts need a list of texts under '{name}'; see organs, normal, abnormal and templates."
            raise PromptError(msg)
        parts[name] = part
    blank = [text for text in parts["templates"] if "{state}" not in text]
    if blank:
        msg = f"{path}: the template {blank[0]!r} does not name {{state}}."
        raise PromptError(msg)
    return {
        state: list(
            dict.fromkeys(
                template.replace("{state}", text.replace("{organ}", organ))
                for organ in parts["organs"]
                for text in parts[state]
                for template in parts["templates"]
            )
        )
        for state in STATES
    }
