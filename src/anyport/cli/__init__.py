"""The command ``anyport``: one file per verb, found by the table in `anyport.cli.verbs`."""

from anyport.cli.frame import main

__all__ = ["main"]
