"""Recipe files read into trees that keep line numbers.

The schema, not YAML, decides what a scalar is: everything but null stays text here, and
pydantic reads `1e-4` as a float where a float is meant and `no` as text where text is meant.
So YAML 1.1's surprises (`1e-4` a string, `no` a boolean, `010` eight, `1:30` ninety) cannot occur.

A file may name one other with `extends: other.yaml`, relative to itself. Mappings merge deeply,
everything else is replaced, and null takes back what the extended files said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml.reader import ReaderError

from configs.document import Node, Place, Problem, RecipeError, merge

EXTENDS = "extends"
DEPTH_AT_MOST = 20  # the schema needs 4; an alias inside its own anchor would have no end
NODES_AT_MOST = 10_000  # the schema needs about 150; nested aliases grow exponentially
_NULL = "tag:yaml.org,2002:null"
_TAGS = frozenset({_NULL, *(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))})


def read_files(path: Path, problems: list[Problem]) -> Node:
    """The merged tree of a file and the files it extends; its root is a mapping.

    Mistakes that leave a tree to go on with are added to `problems`; RecipeError for the others.
    """
    return _read_chain(path, Place(str(path)), problems, chain=())


def read_text(text: str, source: str, key: Sequence[str], problems: list[Problem], lines: bool = True) -> Node:
    """The tree of a YAML text that stands under `key`; RecipeError where the syntax is wrong.

    `lines` says whether line numbers mean anything in this source.
    """
    reader = _Reader(source, lines, problems)
    try:
        return reader.tree(yaml.compose(text, Loader=_Loader), tuple(key))
    except RecipeError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: escapes beyond Unicode
        place, reason = reader.place(_error_line(error, text)), _error_reason(error)
        raise RecipeError([Problem(place, ".".join(key), f"not valid YAML: {reason}")]) from error
    except RecursionError as error:
        place = reader.place(0)
        raise RecipeError([Problem(place, ".".join(key), "nested too deeply to be read")]) from error


def _read_chain(path: Path, named_at: Place, problems: list[Problem], chain: tuple[Path, ...]) -> Node:
    tree = _read_mapping(path, named_at, problems)
    resolved = path.resolve()
    if resolved in chain:
        circle = " -> ".join(file.name for file in (*chain[chain.index(resolved) :], resolved))
        raise RecipeError([Problem(named_at, EXTENDS, f"goes in a circle: {circle}")])
    extends = tree.child(EXTENDS)
    if extends is None:
        return tree
    children = {key: node for key, node in tree.children.items() if key != EXTENDS}
    tree = Node(children, tree.place)
    if not isinstance(extends.value, str):
        problems.append(Problem(extends.place, EXTENDS, "expected the path of a recipe, relative to this file"))
        return tree
    base = _read_chain(path.parent / extends.value, extends.place, problems, (*chain, resolved))
    return merge(base, tree)


def _read_mapping(path: Path, named_at: Place, problems: list[Problem]) -> Node:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no possible path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        subject = "" if named_at.line is None else f"{EXTENDS}: {path}: "
        raise RecipeError([Problem(named_at, "", f"{subject}cannot be read: {reason}")]) from error
    tree = read_text(text, str(path), (), problems)
    if not isinstance(tree.value, Mapping):
        got = {type(None): "nothing", tuple: "a list"}.get(type(tree.value), "text")
        expected = "expected a mapping of a recipe's sections (name, output, data, model, ...)"
        raise RecipeError([Problem(tree.place, "", f"got {got}; {expected}")])
    return tree


class _Loader(yaml.SafeLoader):
    """Composes trees in which only null is not text."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])


@dataclass
class _Reader:
    """Turns PyYAML's nodes into ours, and says what a recipe may not hold."""

    source: str
    lines: bool
    problems: list[Problem]
    nodes: int = field(default=0, init=False)

    def place(self, line: int) -> Place:
        """The place of a line counted from 0."""
        return Place(self.source, line + 1 if self.lines else None)

    def tree(self, root: yaml.Node | None, path: tuple[str, ...]) -> Node:
        if root is None:  # an empty text
            return Node(None, self.place(0))
        return self._node(root, path, root.start_mark.line)

    def _node(self, node: yaml.Node, path: tuple[str, ...], line: int) -> Node:
        self._count(path, line)
        if node.tag not in _TAGS:
            self._report(line, path, f"the tag {node.tag} is refused; write plain text, lists and mappings")
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path), self.place(line))
        if isinstance(node, yaml.SequenceNode):
            items = [self._node(n, (*path, str(i)), n.start_mark.line) for i, n in enumerate(node.value)]
            return Node(tuple(items), self.place(line))
        return Node(None if node.tag == _NULL else str(node.value), self.place(line))

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Node]:
        children: dict[str, Node] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(line, path, "a key is a list or a mapping; expected a name")
                continue
            key = str(key_node.value)
            if key in children:
                both = f"lines {first_lines[key] + 1} and {line + 1}" if self.lines else "in one mapping"
                self._report(line, (*path, key), f"written twice, {both}; keep one")
                continue
            first_lines[key] = line
            children[key] = self._node(value_node, (*path, key), line)
        return children

    def _count(self, path: tuple[str, ...], line: int) -> None:
        self.nodes += 1
        if len(path) > DEPTH_AT_MOST or self.nodes > NODES_AT_MOST:
            limits = f"{DEPTH_AT_MOST} levels and {NODES_AT_MOST} values"
            text = f"too large with its aliases written out; expected at most {limits}"
            raise RecipeError([Problem(self.place(line), path[0] if path else "", text)])

    def _report(self, line: int, path: tuple[str, ...], text: str) -> None:
        self.problems.append(Problem(self.place(line), ".".join(path), text))


def _error_line(error: Exception, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return int(error.problem_mark.line)
    if isinstance(error, ReaderError):
        return text.count("\n", 0, error.position)
    return 0


def _error_reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    if isinstance(error, ReaderError):
        return f"the character U+{error.character:04X} is not allowed"
    return str(error)
