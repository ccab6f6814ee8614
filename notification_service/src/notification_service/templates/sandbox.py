"""The language templates are written in: Jinja2's syntax, cut down to an allow-list that can be bounded
(docs/decisions/0051). Pure but for the time it is given.

Allowed: text, `{{ dotted.names }}`, `{% if %}`, `{% for %}` over a list of the data, comparisons, `and`, `or`, `not`,
and the filters of `filters.py`. No calls, no arithmetic, no assignment, no include, import, macro or block; names reach
into dictionaries and lists only, never at Python attributes.

Bounds: source 32 KiB and 2,000 nodes, 1,000 turns of loops in one rendering, 256 KiB of output, a quarter of a second.
Every value is at most as long as the data (16 KiB) or one literal, every node is one step, and the clock is read at
each turn and each piece of output: so a rendering ends at the latest one turn (some 20 ms) after its quarter of a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from typing_extensions import override

from notification_service.templates.filters import FILTERS

MAX_SOURCE_BYTES: Final = 32 * 1024
MAX_NODES: Final = 2_000
MAX_TURNS: Final = 1_000
MAX_OUTPUT_CHARACTERS: Final = 256 * 1024
MAX_SECONDS: Final = 0.25
ROOTS: Final = ("data", "user", "tenant", "event_type")

_LOOP_FIELDS: Final = ("index", "index0", "first", "last", "length")
_CLOCK: Final = "_herald_budget"
_ALLOWED: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
    nodes.Filter,
    nodes.Keyword,
    nodes.If,
    nodes.For,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Test,
)
_TESTS: Final = frozenset({"defined", "undefined", "none", "true", "false"})


class TemplateRefused(Exception):
    """The template does not belong to the language; says where and why."""


class RenderFailed(Exception):
    """The template cannot be rendered with this data, now or later."""


class VariableMissing(RenderFailed):
    """A variable of the template is not in the data."""


class _Budget:
    """What one rendering may still use."""

    __slots__ = ("_cpu_time", "_deadline", "_turns")

    def __init__(self, cpu_time: Callable[[], float]) -> None:
        self._cpu_time = cpu_time
        self._deadline = cpu_time() + MAX_SECONDS
        self._turns = MAX_TURNS

    def check_time(self) -> None:
        if self._cpu_time() > self._deadline:
            raise RenderFailed(f"rendering takes longer than {MAX_SECONDS:g} s")

    def turns_of(self, values: Any) -> Iterator[Any]:
        for value in values:
            self._turns -= 1
            if self._turns < 0:
                raise RenderFailed(f"loops take more than {MAX_TURNS} turns")
            self.check_time()
            yield value


class _Environment(ImmutableSandboxedEnvironment):
    """Looks into dictionaries and lists, at nothing else."""

    @override
    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP_FIELDS:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    @override
    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            # `StrictUndefined` names itself when it is asked for something.
            return obj[argument]
        if isinstance(obj, Mapping) or (isinstance(obj, list) and type(argument) is int):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                return self.undefined(obj=obj, name=argument)
        return self.undefined(obj=obj, name=argument)

    @override
    def call(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RenderFailed("templates call nothing")


def _make_environment(*, autoescape: bool) -> _Environment:
    environment = _Environment(undefined=StrictUndefined, autoescape=autoescape, keep_trailing_newline=False)
    environment.globals.clear()
    environment.filters = {**FILTERS}
    environment.tests = {name: test for name, test in environment.tests.items() if name in _TESTS}
    return environment


_TEXT: Final = _make_environment(autoescape=False)
_HTML: Final = _make_environment(autoescape=True)


class Compiled:
    """One template text, checked and compiled.

    Attributes:
        uses: Which of `data`, `user`, `tenant`, `event_type` it names.
        uses_timezone: Whether a filter shows moments in the reader's time zone.
    """

    __slots__ = ("_constant", "_template", "uses", "uses_timezone")

    def __init__(self, source: str, *, is_html: bool = False) -> None:
        """Check and compile.

        Raises:
            TemplateRefused: Too long, not Jinja2's syntax, or beyond the allow-list.
        """
        environment = _HTML if is_html else _TEXT
        tree = _parse(environment, source)
        check = _Check()
        check.visit_all(tree)
        self.uses: frozenset[str] = frozenset(check.roots)
        self.uses_timezone: bool = check.uses_timezone
        self._constant = source if "{" not in source else None
        self._template = environment.from_string(tree) if self._constant is None else None

    def render(self, context: Mapping[str, Any], *, cpu_time: Callable[[], float]) -> str:
        """The text.

        Args:
            context: `data`, `user`, `tenant`, `event_type`, and `_locale` and `_timezone` for the filters.
            cpu_time: A clock in seconds.

        Raises:
            VariableMissing: Something it names is not there.
            RenderFailed: It cannot be rendered, or would take too much.
        """
        if self._template is None:
            return self._constant or ""
        budget = _Budget(cpu_time)
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate({**context, _CLOCK: budget}):
                length += len(piece)
                if length > MAX_OUTPUT_CHARACTERS:
                    raise RenderFailed(f"the output is longer than {MAX_OUTPUT_CHARACTERS} characters")
                budget.check_time()
                pieces.append(piece)
        except UndefinedError as error:
            raise VariableMissing(str(error)[:300]) from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RenderFailed(f"{type(error).__name__}: {str(error)[:300]}") from None
        return "".join(pieces)


def mark_safe(html: str) -> str:
    """HTML that was rendered here, so that a layout does not escape it once more."""
    return Markup(html)  # noqa: S704 - rendered with escaping by `Compiled`


def _parse(environment: _Environment, source: str) -> nodes.Template:
    if len(source.encode()) > MAX_SOURCE_BYTES:
        raise TemplateRefused(f"longer than {MAX_SOURCE_BYTES} bytes")
    try:
        return environment.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateRefused(f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateRefused("nested too deep") from None


class _Check:
    """Walks a syntax tree and refuses whatever is not on the list."""

    def __init__(self) -> None:
        self.roots: set[str] = set()
        self.uses_timezone = False
        self._count = 0

    def visit_all(self, tree: nodes.Template) -> None:
        self._visit(tree, frozenset(), 0)

    def _visit(  # noqa: C901 - one line for each kind of node
        self, node: nodes.Node, local: frozenset[str], depth: int
    ) -> None:
        self._count += 1
        if self._count > MAX_NODES or depth > 50:
            raise TemplateRefused(f"larger than {MAX_NODES} nodes, or nested too deep")
        if not isinstance(node, _ALLOWED):
            raise TemplateRefused(f"line {node.lineno}: {type(node).__name__.lower()} is not part of this language")
        match node:
            case nodes.Name():
                self._check_name(node, local)
            case nodes.Getattr():
                self._check_field(node.attr, node)
            case nodes.Getitem():
                self._check_index(node)
            case nodes.Filter():
                self._check_filter(node)
            case nodes.Test():
                if node.name not in _TESTS or node.args or node.kwargs:
                    raise TemplateRefused(f"line {node.lineno}: there is no test {node.name!r}")
            case nodes.For():
                self._visit_loop(node, local, depth)
                return
        for child in node.iter_child_nodes():
            self._visit(child, local, depth + 1)

    def _check_name(self, node: nodes.Name, local: frozenset[str]) -> None:
        if node.name in local:
            return
        if node.name not in ROOTS:
            raise TemplateRefused(f"line {node.lineno}: {node.name!r} is not one of {', '.join(ROOTS)}")
        self.roots.add(node.name)

    def _check_field(self, name: str, node: nodes.Node) -> None:
        if name.startswith("_"):
            raise TemplateRefused(f"line {node.lineno}: names do not begin with an underscore")

    def _check_index(self, node: nodes.Getitem) -> None:
        index = node.arg
        if not isinstance(index, nodes.Const) or not isinstance(index.value, (str, int)):
            raise TemplateRefused(f"line {node.lineno}: an index is a literal")
        if isinstance(index.value, str):
            self._check_field(index.value, node)

    def _check_filter(self, node: nodes.Filter) -> None:
        if node.name not in FILTERS or node.name.startswith("_"):
            raise TemplateRefused(f"line {node.lineno}: there is no filter {node.name!r}")
        if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateRefused(f"line {node.lineno}: {node.name} is not used like this")
        for argument in (*node.args, *(keyword.value for keyword in node.kwargs)):
            if not isinstance(argument, nodes.Const):
                raise TemplateRefused(f"line {node.lineno}: arguments of filters are literals")
        self.uses_timezone = self.uses_timezone or node.name in ("date", "time", "datetime")

    def _visit_loop(self, node: nodes.For, local: frozenset[str], depth: int) -> None:
        if node.recursive or node.test is not None or not isinstance(node.target, nodes.Name):
            raise TemplateRefused(f"line {node.lineno}: loops are `for name in list`")
        if node.target.name.startswith("_") or node.target.name in (*ROOTS, "loop"):
            raise TemplateRefused(f"line {node.lineno}: {node.target.name!r} cannot name a loop's value")
        if not isinstance(node.iter, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            raise TemplateRefused(f"line {node.lineno}: loops go over a list of the data")
        self._visit(node.iter, local, depth + 1)
        inner = local | {node.target.name, "loop"}
        for child in node.body:
            self._visit(child, inner, depth + 1)
        for child in node.else_:
            self._visit(child, local, depth + 1)
        # The compiled loop takes its turns out of the rendering's budget.
        node.iter = nodes.Filter(node.iter, TURNS_FILTER, [], [], None, None, lineno=node.lineno)


TURNS_FILTER: Final = "_turns"
