"""What ``--condition`` asks of a conditional model: classes, attributes, or images."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from vmcmc_dist.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from vmcmc_dist.trained import Trained

SHOWN = 12  # names in a message


def conditions_of(model: Trained, text: str | None, mask: str | None) -> tuple[list[str], Tensor]:
    """Names and conditions c, one for each thing that ``text`` asks for.

    class       names or numbers with commas between them, or ``all``
    attributes  names, or NAME=0 and NAME=1, with commas between them: one condition; attributes
                that are not named are 0
    image       an image file, or a folder of them

    Raises ConfigError where ``text`` does not fit the model, DataError for a file that does not.
    """
    condition = model.condition
    name = model.config.name
    if condition is None:
        raise ConfigError(f"{name} is unconditional: it takes no --condition and no --mask")
    if text is None:
        raise ConfigError(f"{name} is conditional: give --condition {_expected(model)}")
    if condition.kind == "image":
        from vmcmc_dist.data.given import given_conditions

        return given_conditions(model.config.condition, text, model.shape, condition.size, mask)
    if mask is not None:
        raise ConfigError(f"--mask is for inpainting; {name} was trained with {condition.kind}")
    words = [word.strip() for word in text.split(",")]
    if condition.kind == "class":
        return _classes(model, words)
    return [text], _attributes(model, words)


def _expected(model: Trained) -> str:
    """What can be asked of this model, in words."""
    kind = model.config.condition.kind
    if kind == "inpaint":
        return "IMAGE or FOLDER, with transparent pixels, or --mask FILE, white where hidden"
    if kind not in ("class", "attributes"):
        return f"IMAGE or FOLDER ({kind})"
    names = ", ".join(model.label_names[:SHOWN])
    more = f", … ({len(model.label_names)} in all)" if model.label_names[SHOWN:] else ""
    return f"with any of: {names}{more}" + (", or all" if kind == "class" else "")


def _classes(model: Trained, words: list[str]) -> tuple[list[str], Tensor]:
    import torch

    if words == ["all"]:
        words = list(model.label_names)
    numbers = [_number(model, word, digits=True) for word in words]
    return [model.label_names[k] for k in numbers], torch.tensor(numbers)


def _attributes(model: Trained, words: list[str]) -> Tensor:
    import torch

    c = torch.zeros(1, len(model.label_names))
    for word in words:
        name, _, value = word.partition("=")
        if value not in ("", "0", "1"):
            raise ConfigError(f"--condition {word}: an attribute is 0 or 1, as in {name}=1")
        c[0, _number(model, name)] = float(value or 1)
    return c


def _number(model: Trained, word: str, digits: bool = False) -> int:
    """The place of a label among the model's, by its name, or by its number where allowed."""
    names = [name.lower() for name in model.label_names]
    if word.lower() in names:
        return names.index(word.lower())
    if digits and word.isdigit() and int(word) < len(names):
        return int(word)
    close = difflib.get_close_matches(word.lower(), names, 1)
    hint = f" (did you mean {model.label_names[names.index(close[0])]}?)" if close else ""
    kind = "class" if digits else "attribute"
    raise ConfigError(
        f"--condition {word}: {model.config.name} knows no such {kind}{hint}; give --condition "
        f"{_expected(model)}"
    )
