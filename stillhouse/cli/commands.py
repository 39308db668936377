"""The commands of `stillhouse`, put together."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stillhouse import __version__
from stillhouse.cli import artifacts, doctor, jobs, planning, predicting, recipes, serving
from stillhouse.cli.exits import EPILOG, told_plainly
from stillhouse.cli.keys import keys
from stillhouse.cli.webhooks import webhooks


class Commands(TyperGroup):
    """Tells every error plainly, whichever command it comes from."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - click's, which typer keeps to itself
        """Run the command that was asked for."""
        with told_plainly():
            return super().invoke(ctx)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, epilog=EPILOG)


@app.callback()
def stillhouse(
    *, version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False
) -> None:
    """Compress models by knowledge distillation."""


_HERE, _JOBS, _STORED = "On this machine", "Jobs", "Files and keys"
app.command(rich_help_panel=_HERE)(serving.up)
app.command(rich_help_panel=_HERE)(serving.distill)
app.command(rich_help_panel=_HERE)(predicting.predict)
app.command(rich_help_panel=_HERE)(doctor.doctor)
app.command(rich_help_panel=_JOBS)(recipes.recipes)
app.command(rich_help_panel=_JOBS)(planning.plan)
app.command(rich_help_panel=_JOBS)(jobs.submit)
app.command(rich_help_panel=_JOBS)(jobs.watch)
app.command("list", rich_help_panel=_JOBS)(jobs.list_jobs)
app.command(rich_help_panel=_JOBS)(jobs.show)
app.command(rich_help_panel=_JOBS)(jobs.cancel)
app.command(rich_help_panel=_JOBS)(jobs.pause)
app.command(rich_help_panel=_JOBS)(jobs.resume)
app.command(rich_help_panel=_JOBS)(jobs.retry)
app.command(rich_help_panel=_JOBS)(jobs.update)
app.command(rich_help_panel=_JOBS)(jobs.download)
app.command(rich_help_panel=_JOBS)(jobs.report)
app.command(rich_help_panel=_JOBS)(jobs.attempts)
app.command(rich_help_panel=_JOBS)(jobs.checkpoints)
app.command(rich_help_panel=_JOBS)(jobs.logs)
app.command(rich_help_panel=_STORED)(artifacts.upload)
app.command(rich_help_panel=_STORED)(artifacts.artifacts)
app.add_typer(webhooks, name="webhooks", rich_help_panel=_STORED)
app.add_typer(keys, name="keys", rich_help_panel=_STORED)
