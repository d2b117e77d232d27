"""Selects the code blocks of a response that form the program under test. Imports only the standard library, because it runs in
the sandbox.

A response may contain other blocks than the program: helpers, usage examples, sample input or output, a brute-force version.
The selection depends on the kind of tests:

- Tests of a function: the last block that defines it, as a function or as a method of a class Solution. Stubs (only `pass`,
  `...` or a docstring) and imports of that name count only if there is no other definition.
- Tests on stdin: the last block that reads stdin and prints when run; otherwise the last that does so together with the blocks
  that it needs. A block that replaces stdin by a text of its own is a usage example.
- If no block qualifies, the last one.

Names that the selected block uses but does not define are taken from the other blocks, preferring the nearest one before it.
From these blocks only definitions are taken, not prints, asserts or reads of stdin.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Part = ast.Module | str
"""A part of the program that is compiled and run: a syntax tree, or the source text if it does not parse."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom)
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign)
_BUILTINS = set(dir(builtins)) | {"__name__", "__file__", "exit", "quit"}
_DEFINED, _STUB, _IMPORTED = 3, 2, 1


@dataclass
class Block:
    """A parsed code block."""

    text: str
    tree: ast.Module | None
    """None if the block is not valid Python."""
    bound: set[str] = field(default_factory=set)
    """Names bound at the top level."""
    needs: set[str] = field(default_factory=set)
    """Names that are used but bound nowhere in the block."""
    reads: bool = False
    """Whether any of its code reads stdin."""
    writes: bool = False
    """Whether any of its code prints."""
    runs: bool = False
    """Whether its top level has statements other than definitions."""


def choose(blocks: list[str], function: str | None, reads: bool, preamble: str | None = None) -> list[Part]:
    """The parts of the program, to be run in order in one namespace.

    Args:
        blocks: the response's code blocks, in order; at least one.
        function: name of the function that the tests call; None if they run the whole program.
        reads: whether the tests provide stdin.
        preamble: code that runs before the program; a block that only continues the body of its last function is parsed
            together with it.
    """
    read = [_read(text, preamble) for text in blocks]
    if function is not None:
        ranks = [_rank(block, function) for block in read]
    elif reads:
        ranks = [2 * _is_whole([block]) or int(_is_whole([block, *_helpers(place, read)])) for place, block in enumerate(read)]
    else:
        ranks = [int(block.runs) for block in read]
    chosen = max(range(len(read)), key=lambda place: (ranks[place], place))
    main = read[chosen]
    helpers = _helpers(chosen, read)
    if main.tree is None:
        return [main.text]
    # If the program does not read stdin itself, it may be split over several blocks: then their top-level code is part of it.
    whole = function is None and not main.reads
    return [*(_library(block.tree, whole) for block in helpers if block.tree is not None), main.tree]


def _read(text: str, preamble: str | None) -> Block:
    tree = _parse(text)
    if tree is None and preamble is not None and re.match(r"\s*\n?[ \t]+\S", text):
        tree = _parse(f"{preamble.rstrip()}\n{text}")
    if tree is None:
        reads = re.search(r"\binput\(|\bsys\.stdin\b", text) is not None and "print" in text
        return Block(text, None, reads=reads, writes=reads, runs=reads)
    nodes = list(ast.walk(tree))
    stored = {name for node in nodes for name in _bound_by(node)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {name for node in _top_level(tree) for name in _bound_by(node)}
    runs = any(not isinstance(node, _DEFINITIONS) and not _is_plain(node) for node in tree.body)
    return Block(text, tree, bound, loaded - stored - _BUILTINS, _reads_stdin(nodes), any(map(_writing, nodes)), runs)


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that are executed at the top level, that is, outside functions and classes."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(child, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield from _top_level(child)


def _bound_by(node: ast.AST) -> list[str]:
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        return [node.name] if node.name else []
    return []


def _is_plain(node: ast.stmt) -> bool:
    """Whether it is a docstring or an assignment without a call."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, _ASSIGNMENTS) and not any(isinstance(inner, ast.Call) for inner in ast.walk(node))


# ---------------------------------------------------------------------------------------------- tests of a function


def _rank(block: Block, function: str) -> int:
    """How well the block defines the function: _DEFINED, _STUB, _IMPORTED or 0 (not at all)."""
    if block.tree is None:
        with_body = rf"^\s*(?:async\s+)?def\s+{function}\b.*:\s*\n\s+\S"  # a signature without a body does not count
        return _DEFINED if re.search(with_body, block.text, re.MULTILINE) else 0
    return max((_definition(node, function) for node in _top_level(block.tree)), default=0)


def _definition(node: ast.AST, function: str) -> int:
    if isinstance(node, ast.ClassDef) and node.name == "Solution":
        return max((_definition(inner, function) for inner in node.body), default=0)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        from_itself = any(isinstance(inner, ast.Name) and inner.id == function for inner in ast.walk(node.value or node))
        return _DEFINED if function in names and node.value is not None and not from_itself else 0
    if function not in _bound_by(node):
        return 0
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _IMPORTED
    if isinstance(node, _FUNCTIONS) and all(map(_says_nothing, node.body)):
        return _STUB
    return _DEFINED if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) else 0


def _says_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplemented" in ast.dump(node)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


# ---------------------------------------------------------------------------------------------- tests on stdin


def _reads_stdin(nodes: list[ast.AST]) -> bool:
    """Whether the code reads stdin and does not replace it by a text of its own."""
    if any(_replaces_stdin(node) for node in nodes):
        return False
    own_input = any(map(_replaces_input, nodes))
    return any(_reading(node, own_input) for node in nodes)


def _replaces_input(node: ast.AST) -> bool:
    """Whether it redefines input: `def input(): ...` or `input = lambda: ...`, but not `input = input().split()`."""
    if isinstance(node, ast.Assign):
        return any("input" in _bound_by(target) for target in node.targets) and not any(map(_reading, ast.walk(node.value)))
    return isinstance(node, _FUNCTIONS) and node.name == "input"


def _reading(node: ast.AST, own_input: bool = False) -> bool:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        is_zero = first in (0, "/dev/stdin") and not isinstance(first, bool)
        return (name == "input" and not own_input) or (name in ("open", "read", "fdopen", "FileIO") and is_zero)
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        return (node.attr if isinstance(node, ast.Attribute) else node.id) in ("stdin", "fileinput", "__stdin__")
    return isinstance(node, ast.alias) and node.name == "fileinput"


def _replaces_stdin(node: ast.AST) -> bool:
    """Whether it is `sys.stdin = StringIO("3 4")`, or patches input. (`sys.stdin = open(0)` and wrappers still read stdin.)"""
    if isinstance(node, ast.Assign):
        to_stdin = any(isinstance(target, ast.Attribute) and target.attr == "stdin" for target in node.targets)
        return to_stdin and not any(_reading(inner) for inner in ast.walk(node.value))
    if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
        "patch",
        "object",
        "setattr",
    ):
        return any(isinstance(inner, ast.Constant) and inner.value in ("builtins.input", "sys.stdin", "input", "stdin")
                   for inner in node.args)  # fmt: skip
    return False


def _writing(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("write", "writelines")
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in ("print", "stdout", "__stdout__")


def _is_whole(blocks: list[Block]) -> bool:
    """Whether the first block, with the others as its helpers, is a complete program that reads stdin and prints."""
    return blocks[0].runs and any(block.reads for block in blocks) and any(block.writes for block in blocks)


# ---------------------------------------------------------------------------------------------- helpers


def _helpers(chosen: int, blocks: list[Block]) -> list[Block]:
    """The other blocks that define names which the chosen block needs (transitively), in the order of the response.

    All of them are valid Python, since other blocks have no bound names.
    """
    nearest = [*range(chosen - 1, -1, -1), *range(chosen + 1, len(blocks))]
    taken: set[int] = set()
    missing, known = set(blocks[chosen].needs), set(blocks[chosen].bound)
    while missing:
        name = min(missing)
        missing.discard(name)
        known.add(name)
        place = next((place for place in nearest if name in blocks[place].bound), None)
        if place is not None and place not in taken:
            taken.add(place)
            known |= blocks[place].bound
            missing = (missing | blocks[place].needs) - known
    return [blocks[place] for place in sorted(taken)]


def _library(tree: ast.Module, whole: bool) -> ast.Module:
    """The statements to take from a helper block: its definitions; with ``whole``, all except prints, asserts and
    `__main__`."""
    return ast.Module([node for node in tree.body if _is_library(node, whole)], [])


def _is_library(node: ast.stmt, whole: bool) -> bool:
    if isinstance(node, _DEFINITIONS):
        return True
    if whole:
        called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node.value.func
        is_print = isinstance(called, ast.Name) and called.id == "print"
        is_main = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        return not (is_print or is_main or isinstance(node, ast.Assert))
    return isinstance(node, _ASSIGNMENTS) and not any(map(_reading, ast.walk(node)))
