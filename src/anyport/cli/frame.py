"""The frame around every verb: finding it, printing errors, the exit code.

Exit codes: 0 fine, 1 a check failed, 2 wrong use, 70 a mistake in anyport (sysexits.h), 130 interrupted, 143
terminated (SIGTERM); both end in order, as an error does.
With ``--json`` standard output holds one JSON document in every case, the error if there is one.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import click

from anyport.cli.verbs import VERBS
from anyport.errors import AnyportError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WRONG_USE: Final = 2
OUR_MISTAKE: Final = 70
INTERRUPTED: Final = 130
TERMINATED: Final = 143


class _Terminated(BaseException):
    """SIGTERM, on its way up; no `Exception`, as `KeyboardInterrupt` is none."""


class VerbGroup(click.Group):
    """The group of the table `VERBS`: a verb's module is imported when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        return cast("click.Command", import_module(VERBS[cmd_name].module).command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or name the nearest one."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise UsageError(
                f"there is no verb '{args[0]}'{did_you_mean(args[0], VERBS)}", do="anyport --help"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.about) for name, verb in VERBS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 -- click's
    if value:
        from anyport import __version__

        click.echo(f"anyport {__version__}")
        ctx.exit()


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB [ARGUMENTS]…",
    epilog="anyport VERB --help says more. Exit codes: 0 fine, 1 a check failed, 2 wrong use.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def anyport() -> None:
    """Export once, run in any port: a PyTorch model becomes a proven bundle that runs without PyTorch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; those of the process if absent.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        with _ending_in_order():
            code = anyport.main(words, prog_name="anyport", standalone_mode=False)
    except AnyportError as err:
        _print_error(err, as_json=as_json)
        return err.exit_code
    except click.ClickException as err:
        _print_error(_from_click(err), as_json=as_json)
        return WRONG_USE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except _Terminated:
        click.echo("terminated", err=True)
        return TERMINATED
    except Exception as err:  # noqa: BLE001 -- the edge of the process: an exit code of its own
        traceback.print_exc()
        if as_json:
            _print_error(UsageError(f"a mistake in anyport: {type(err).__name__}: {err}"), as_json=True)
        click.echo("this is a mistake in anyport; please report it with the lines above", err=True)
        return OUR_MISTAKE
    return code if isinstance(code, int) else 0


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM, which services and CI send, unwind the program as Ctrl-C does; else nothing is cleaned up.

    Where somebody has a handler already (or ignores it), and in other threads, it is left alone.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleaning up
    raise _Terminated


def show_json(record: dict[str, Any]) -> None:
    """Print the one JSON document of a verb."""
    click.echo(json.dumps(record, indent=2, ensure_ascii=False))


def _print_error(err: AnyportError, *, as_json: bool) -> None:
    kind = type(err).__name__
    if as_json:
        show_json({"error": {"kind": kind, "what": err.what, "where": err.where, "do": err.do}})
        return
    click.echo(f"{kind}: {err}", err=True)


def _from_click(err: click.ClickException) -> UsageError:
    context = getattr(err, "ctx", None)
    do = None if context is None else f"{context.command_path} --help"
    return UsageError(err.format_message().rstrip("."), do=do)
