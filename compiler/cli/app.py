"""The typer application: the commands, and how errors end."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import planish
from planish.ir.errors import PlanishError

from .bench import bench
from .capture import capture
from .compile import compile_
from .compress import compress
from .console import fail, stdout
from .demo import demo
from .inspect import inspect
from .lists import passes, targets
from .run import run

BAD_INPUT = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """Ends a user's mistake with one line and exit status 2, an interrupt with 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PlanishError as error:
            fail(str(error))
            raise typer.Exit(BAD_INPUT) from error
        except BrokenPipeError:
            raise  # `planish inspect ... | head`; typer ends it quietly
        except OSError as error:
            where = f"; at {error.filename}" if error.filename else ""
            fail(f"{error.strerror or error}{where}")
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as error:
            fail("interrupted; nothing was written")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="planish",
    cls=Commands,
    help="A compiler for compressed neural networks: pruned, distilled, quantized, exact int8.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        stdout().print(f"planish {planish.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A compiler for compressed neural networks: pruned, distilled, quantized, exact int8."""
    del version


_MODELS, _LISTS = "Models", "Lists"
app.command(rich_help_panel=_MODELS)(capture)
app.command(rich_help_panel=_MODELS)(inspect)
app.command(rich_help_panel=_MODELS)(compress)
app.command("compile", rich_help_panel=_MODELS)(compile_)
app.command(rich_help_panel=_MODELS)(run)
app.command(rich_help_panel=_MODELS)(bench)
app.command(rich_help_panel=_LISTS)(passes)
app.command(rich_help_panel=_LISTS)(targets)
app.command(rich_help_panel="Example")(demo)
