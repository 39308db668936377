"""The command line. The commands are imported when `main` runs, so that importing this package costs nothing."""


def main() -> None:
    """Run `stillhouse`."""
    from stillhouse.cli.commands import app  # noqa: PLC0415 - typer and rich load only when a command runs

    app()
