"""The frame: help, version, errors in both forms, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click
import pytest

from anyport.cli import frame
from anyport.cli.verbs import VERBS, Verb
from anyport.errors import MismatchError
from tests.house import tree

if TYPE_CHECKING:
    from tests.cli.shell import Shell

ENVIRONMENT = os.environ | {"PYTHONPATH": str(tree.PACKAGE.parent)}


def run(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anyport", *words]
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, capture_output=True, text=True, env=ENVIRONMENT, check=False, **settings
    )


def test_help_lists_every_verb_without_importing_one() -> None:
    code = (
        "import sys; from anyport.cli import main; main(['--help'])\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'torch', 'PIL', 'msgspec', 'rich'} & set(sys.modules)\n"
        "verbs = [name for name in sys.modules if name.startswith('anyport.')]\n"
        "print('HEAVY', sorted(heavy), sorted(verbs), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert done.stderr.strip() == (
        "HEAVY [] ['anyport.cli', 'anyport.cli.frame', 'anyport.cli.verbs', 'anyport.errors']"
    )
    for verb in VERBS:
        assert f"  {verb} " in done.stdout


@pytest.mark.parametrize("words", [("-h",), ("--help",)])
def test_both_words_for_help(shell: Shell, words: tuple[str, ...]) -> None:
    found = shell(*words)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("Usage: anyport [OPTIONS] VERB [ARGUMENTS]…")


def test_version(shell: Shell) -> None:
    found = shell("--version")
    assert found.code == 0
    assert found.out.startswith("anyport ")


def test_no_verb_is_wrong_use() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: anyport" in done.stdout + done.stderr


def test_an_unknown_verb_is_named(shell: Shell) -> None:
    found = shell("inspct", "x")
    assert (found.code, found.out) == (2, "")
    assert (
        found.err
        == "UsageError: there is no verb 'inspct' (did you mean 'inspect'?)\n  do:    anyport --help\n"
    )


def test_an_unknown_option_is_named(shell: Shell) -> None:
    found = shell("pack", "x", "--ouput", "y")
    assert found.code == 2
    assert found.err.startswith("UsageError: No such option '--ouput'")
    assert found.err.endswith("  do:    anyport pack --help\n")


def test_errors_have_their_form(shell: Shell) -> None:
    found = shell("inspect", "nope.port")
    assert (found.code, found.out) == (1, "")
    assert found.err == "BundleError: there is no bundle 'nope.port'\n  where: nope.port\n"


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("inspect", "nope.port", "--json"), 1, "BundleError"),
        (("inspect", "nope.onnx", "--json"), 2, "InputError"),
        (("inspect", "--json"), 2, "UsageError"),
        (("nope", "--json"), 2, "UsageError"),
    ],
)
def test_errors_are_json_where_json_is_asked_for(
    shell: Shell, words: tuple[str, ...], code: int, kind: str
) -> None:
    found = shell(*words)
    assert (found.code, found.err) == (code, "")
    assert found.record["error"]["kind"] == kind
    assert set(found.record["error"]) == {"kind", "what", "where", "do"}


def plant(monkeypatch: pytest.MonkeyPatch, action: object) -> None:
    """Put a verb ``planted`` into the table that does this."""

    @click.command()
    def command() -> object:
        return action() if callable(action) else action

    module = type(sys)("planted")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planted", module)
    monkeypatch.setitem(VERBS, "planted", Verb("planted", "A test."))


def raising(error: BaseException) -> object:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (None, 0),
        (0, 0),
        (1, 1),
        (raising(MismatchError("off by 3")), 1),
        (raising(click.BadParameter("no")), 2),
        (raising(KeyboardInterrupt()), frame.INTERRUPTED),
        (raising(ZeroDivisionError("ours")), frame.OUR_MISTAKE),
    ],
)
def test_exit_codes(shell: Shell, monkeypatch: pytest.MonkeyPatch, action: object, code: int) -> None:
    plant(monkeypatch, action)
    assert shell("planted").code == code


def test_our_own_mistake_shows_where(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, raising(ZeroDivisionError("ours")))
    found = shell("planted")
    assert "ZeroDivisionError: ours" in found.err
    assert found.err.endswith("this is a mistake in anyport; please report it with the lines above\n")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["ctrl-c", "sigterm"],
)
def test_a_signal_ends_in_order_with_its_code(sent: signal.Signals, code: int, word: str) -> None:
    program = (
        "import signal, sys, time, click\n"
        # a shell without job control starts background work with Ctrl-C switched off
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from anyport.cli import frame\n"
        "from anyport.cli.verbs import VERBS, Verb\n"
        "@click.command()\n"
        "def command():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "module = type(sys)('planted'); module.command = command; sys.modules['planted'] = module\n"
        "VERBS['planted'] = Verb('planted', 'A test.')\n"
        "sys.exit(frame.main(['planted']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)  # between two statements Python may lose the exception; in sleep() it cannot
        child.send_signal(sent)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err.strip()) == (code, "cleaned up\n", word)


def test_a_handler_of_somebody_else_stays(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    plant(monkeypatch, lambda: seen.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    shell("planted")
    assert signal.getsignal(signal.SIGTERM) is before
    own = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        shell("planted")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, own)
    assert seen[1] is signal.SIG_IGN
    assert seen[0] is not signal.SIG_DFL


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m anyport --help | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert "Traceback" not in done.stderr
