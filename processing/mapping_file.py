"""Reads settings that people write as YAML or JSON, and knows on which line each stands."""

import re
from pathlib import Path

import yaml

from .post_files import PostError


class Mapping(dict):
    """A mapping of a file that knows the lines of its keys."""

    lines: dict


class Loader(yaml.SafeLoader):
    """Makes each mapping a `Mapping`, refuses a key that stands twice in one, and knows booleans as YAML 1.2 does:
    `off` is a word.
    """

    yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _construct_mapping(loader: Loader, node: yaml.MappingNode) -> Mapping:
    own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    mapping, mapping.lines = (result := Mapping()), {}
    for key_node in own:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str | int | float | None):
            raise PostError(f"{loader.name}:{line}: a list or a mapping is no key; a word is expected.")
        if key in mapping.lines:
            raise PostError(f"{loader.name}:{line}: {key} stands here again; keep one.")
        mapping.lines[key] = line
    loader.flatten_mapping(node)  # puts what `<<` names in front, where the mapping's own keys win over it
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        mapping[key] = loader.construct_object(value_node, deep=True)
        mapping.lines.setdefault(key, key_node.start_mark.line + 1)
    return result


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_mapping(path: str | Path, kind: str, held: str) -> Mapping:
    """Reads a file that holds a mapping.

    Args:
        kind: what the file is called, such as "recipe".
        held: what is mapped, for the message where it is none.

    Raises:
        PostError: names file, line and what is wrong.
    """
    path = Path(path)
    try:
        loader = Loader(path.read_text(encoding="utf-8"))
        loader.name = str(path)
        given = loader.get_single_data()
    except FileNotFoundError as error:
        raise PostError(f"{path}: no such {kind}.") from error
    except OSError as error:
        raise PostError(f"{path}: can't be read ({error.strerror}); name the file of a {kind}.") from error
    except UnicodeDecodeError as error:
        raise PostError(f"{path}: no UTF-8 ({error.reason}); save the file as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise PostError(f"{path}{line}: neither YAML nor JSON: {getattr(error, 'problem', error)}.") from error
    if not isinstance(given, Mapping):
        raise PostError(f"{path}: a mapping of {held} is expected.")
    return given
