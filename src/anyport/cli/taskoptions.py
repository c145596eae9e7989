"""The options of a task become those of ``anyport run BUNDLE``."""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import click

from anyport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from msgspec import inspect, structs

    from anyport.task.graphs import Graphs

_GRAPHS: Final = "anyport.graphs"
_OPTIONS: Final = "anyport.task_options"
_CHOSEN: Final = "anyport.chosen_options"
_SHORT: Final = {"output": "-o"}


class TaskCommand(click.Command):
    """A command whose options depend on its first argument, the bundle."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the bundle's task first, then the words."""
        bundle = self._first_argument(ctx, args)
        if bundle is not None:
            ctx.meta[_GRAPHS] = _open(ctx, bundle)
            ctx.meta[_OPTIONS] = _options_of(ctx.meta[_GRAPHS])
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as err:
            if bundle is None:
                raise
            raise _explained(err, ctx, bundle) from err

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own options and those of the task."""
        own = super().get_params(ctx)
        return [*own[:-1], *ctx.meta.get(_OPTIONS, ()), own[-1]]

    def _first_argument(self, ctx: click.Context, args: list[str]) -> str | None:
        """Return the first word that is neither an option of the command nor the value of one."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        with_value = {name for option in options if not option.is_flag for name in option.opts}
        known = {"--", *ctx.help_option_names, *(name for option in options for name in option.opts)}
        is_value = False
        for word in args:
            if not is_value and not word.startswith("-"):
                return word
            if not is_value and word.partition("=")[0] not in known:
                raise UsageError(
                    f"'{word}' is no option of '{ctx.command_path}' itself",
                    do=f"put options of the task behind BUNDLE: {ctx.command_path} BUNDLE INPUT… {word}",
                )
            is_value = not is_value and word in with_value
        return None


def chosen_options(ctx: click.Context) -> dict[str, Any]:
    """Return the task's options that stand on the command line."""
    return dict(ctx.meta.get(_CHOSEN, {}))


def chosen_graphs(ctx: click.Context) -> Graphs:
    """Return the open bundle: a zip is unpacked once only."""
    graphs: Graphs = ctx.meta[_GRAPHS]
    return graphs


def _explained(err: click.UsageError, ctx: click.Context, bundle: str) -> UsageError:
    what = err.format_message().rstrip(".")
    if isinstance(err, click.NoSuchOption):
        from anyport.task.opening import TENSORS

        # without the dashes, which make '--json' of '--question'
        word, known = err.option_name.lstrip("-"), [name.lstrip("-") for name in err.possibilities or ()]
        near = did_you_mean(word, known) if get_close_matches(word, known) else ""
        task = chosen_graphs(ctx).task or TENSORS
        what = f"the task '{task}' of {bundle} has no option '{err.option_name}'{near}"
    return UsageError(what, do=f"{ctx.command_path} {shlex.quote(bundle)} --help")


def _open(ctx: click.Context, bundle: str) -> Graphs:
    from anyport.task.opening import open_graphs

    graphs = open_graphs(bundle)
    ctx.call_on_close(graphs.close)
    return graphs


def _options_of(graphs: Graphs) -> list[click.Option]:
    from msgspec import structs

    from anyport.task.opening import module_of

    return [_option(field) for field in structs.fields(module_of(graphs).Options)]


def _option(field: structs.FieldInfo) -> click.Option:
    """Make the option of one field: name, type, default, range and help come from the struct."""
    from msgspec import inspect

    kinds = _kinds(inspect.type_info(field.type))
    kind = next(one for one in kinds if not isinstance(one, inspect.NoneType | inspect.Metadata))
    words = [one.extra_json_schema for one in kinds if isinstance(one, inspect.Metadata)]
    about = next(str(word["description"]) for word in words if word)
    if isinstance(field.default, int | float | str) and not isinstance(field.default, bool):
        about = f"{about}  [default: {field.default}]"
    names = [_SHORT[field.name]] if field.name in _SHORT else []
    return click.Option(
        [*names, f"--{field.name.replace('_', '-')}"],
        is_flag=isinstance(kind, inspect.BoolType),
        type=_click_type(kind),
        default=None,
        help=about,
        expose_value=False,
        callback=_note,
    )


def _kinds(described: inspect.Type) -> list[inspect.Type]:
    """Return a type and the types inside it."""
    from msgspec import inspect

    if isinstance(described, inspect.Metadata):
        return [described, *_kinds(described.type)]
    if isinstance(described, inspect.UnionType):
        return [found for choice in described.types for found in _kinds(choice)]
    return [described]


def _click_type(kind: inspect.Type) -> click.ParamType[Any] | None:
    from msgspec import inspect

    if isinstance(kind, inspect.LiteralType):
        return click.Choice([str(value) for value in kind.values])
    if isinstance(kind, inspect.IntType):
        return click.INT if kind.ge is None and kind.le is None else click.IntRange(kind.ge, kind.le)
    if isinstance(kind, inspect.FloatType):
        return _float_type(kind)
    return None if isinstance(kind, inspect.BoolType) else click.STRING


def _float_type(kind: inspect.FloatType) -> click.ParamType[Any]:
    least, most = (kind.gt if kind.ge is None else kind.ge), (kind.lt if kind.le is None else kind.le)
    if least is None and most is None:
        return click.FLOAT
    return click.FloatRange(least, most, min_open=kind.gt is not None, max_open=kind.lt is not None)


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ANN401 -- click's signature
    if value is not None and param.name is not None:
        ctx.meta.setdefault(_CHOSEN, {})[param.name] = value
