"""The command line, and what its exit codes mean.

      0  done; a job that finished with error rows is done too
      1  something failed that this program did not expect; the traceback is for its makers
      2  what was asked cannot be done: a wrong flag, setting, model, an image that cannot be read, training that fails
      3  storage or machines failed, or a job was told to end: the same command goes on from there
    130  interrupted from the keyboard; a job that is started again goes on from what it committed

Importing this module loads neither torch nor Ray: each command imports what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from skipvision.commands.answer import answer
from skipvision.commands.chain_of_sight import chain_of_sight
from skipvision.commands.evaluate import evaluate
from skipvision.commands.exercises import exercises
from skipvision.commands.jobs import jobs
from skipvision.commands.output import say
from skipvision.commands.plan import plan
from skipvision.commands.results import results
from skipvision.commands.run import run
from skipvision.commands.serve import key, serve
from skipvision.commands.submit import submit
from skipvision.commands.tune import tune
from skipvision.commands.zoo import card, train
from skipvision.errors import ConfigError, InputError, SkipVisionError, TrainingError
from skipvision.version import __version__

app = typer.Typer(
    name="skipvision",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Answer questions about images with a vision-language model, paying for fewer visual tokens.",
)
zoo = typer.Typer(no_args_is_help=True, help="The model that ships: its measured figures and its recipe.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an unexpected failure leaves as the exception it is."""
    try:
        app(args=arguments)
    except SystemExit as leave:
        return int(leave.code or 0)
    except (ConfigError, InputError, TrainingError) as error:
        say(f"skipvision: {error}")
        return 2
    except SkipVisionError as error:
        say(f"skipvision: {error}")
        return 3
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"skipvision {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def metrics() -> None:
    """Print every published number, its unit and its meaning, as a Markdown page."""
    from skipvision.metrics import catalogue_page

    print(catalogue_page(), end="")


app.command()(plan)
app.command()(run)
app.command()(submit)
app.add_typer(jobs, name="jobs")
app.command()(answer)
app.command()(results)
app.command()(serve)
app.command("key")(key)
app.command()(tune)
app.command()(evaluate)
app.command()(exercises)
app.command("chain-of-sight")(chain_of_sight)
zoo.command()(card)
zoo.command()(train)
app.add_typer(zoo, name="zoo")

if __name__ == "__main__":
    raise SystemExit(main())
