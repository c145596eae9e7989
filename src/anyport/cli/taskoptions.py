"""The options of a task become those of ``anyport run BUNDLE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    import msgspec
    from msgspec import inspect

_KEY: Final = "anyport.task_options"
_SHORT: Final = {"output": "-o"}


class TaskCommand(click.Command):
    """A command whose options depend on its first argument, the bundle."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the bundle's task first, then the words."""
        bundle = self._first_argument(args)
        if bundle is not None:
            ctx.meta[_KEY] = _options_of_bundle(bundle)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own options and those of the task."""
        own = super().get_params(ctx)
        return [*own[:-1], *ctx.meta.get(_KEY, ()), own[-1]]

    def _first_argument(self, args: list[str]) -> str | None:
        """Return the first word that is neither an option of the command nor the value of one."""
        with_value = {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }
        is_value = False
        for word in args:
            if not is_value and not word.startswith("-"):
                return word
            is_value = not is_value and word in with_value
        return None


def _options_of_bundle(bundle: str) -> list[click.Option]:
    from msgspec import inspect

    from anyport.task.opening import TENSORS, open_graphs, task_module

    graphs = open_graphs(bundle)
    try:
        kind = task_module(graphs.task or TENSORS).Options
    finally:
        graphs.close()
    described = inspect.type_info(kind)
    return [_option(kind, field) for field in described.fields]  # type: ignore[attr-defined]


def _option(kind: type[msgspec.Struct], field: inspect.Field) -> click.Option:
    """Make the option of one field: name, type, default, range and help come from the struct."""
    names = [_SHORT[field.name]] if field.name in _SHORT else []
    names.append(f"--{field.name.replace('_', '-')}")
    help_text, value_type, is_flag = _words(field.type)
    settings: dict[str, Any] = {"help": help_text, "default": None}
    if is_flag:
        return click.Option(names, is_flag=True, **settings)
    if field.default is not None and isinstance(field.default, int | float | str):
        settings["help"] = f"{help_text}  [default: {field.default}]"
    return click.Option(names, type=value_type, **settings)
