"""The console script, and `python -m autoprune`: before the commands are imported, Ctrl-C ends with one line."""

from autoprune.interrupts import ended_at_once


def main() -> None:
    """One command, as `sys.argv` says."""
    with ended_at_once():
        from autoprune.cli import main as command
    command()


if __name__ == "__main__":
    main()
