"""What every test of the command line runs it with."""

import sys

import pytest

from distill3d import cli


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `distill3d ...` in an empty folder; returns exit code and everything it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["distill3d", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run
