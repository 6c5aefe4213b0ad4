"""The typer application: the commands, and how errors end."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

import planish
from planish.ir.errors import PlanishError
from planish.ir.requirements import missing_package

from .bench import bench
from .capture import capture
from .compile import compile_
from .compress import compress
from .console import fail, stdout
from .demo import demo
from .export import export
from .inspect import inspect
from .lists import passes, targets
from .run import run
from .tune import tune
from .unpack import unpack

BAD_INPUT = 2
INTERRUPTED = 130


# What typer raises for a mistake on the command line; it has no public name of its own.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])


class Commands(TyperGroup):
    """Ends a user's mistake with one line and exit status 2, an interrupt with 130."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except typer.Abort:
            status = INTERRUPTED
        except _UsageError as error:
            status = _explain(error)
        if standalone_mode:
            sys.exit(status if isinstance(status, int) else 0)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PlanishError as error:
            fail(str(error))
            raise typer.Exit(BAD_INPUT) from error
        except ModuleNotFoundError as error:
            missing = missing_package(error)
            if missing is None:
                raise
            fail(str(missing))
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


def _explain(error: Any) -> int:
    """Print a mistake on the command line as one line; without a command, print the help."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return BAD_INPUT
    context = error.ctx.command_path if error.ctx is not None else "planish"
    fail(f"{message.rstrip('.')}; see {context} --help")
    return BAD_INPUT


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
app.command(rich_help_panel=_MODELS)(tune)
app.command(rich_help_panel=_MODELS)(export)
app.command(rich_help_panel=_MODELS)(unpack)
app.command(rich_help_panel=_MODELS)(run)
app.command(rich_help_panel=_MODELS)(bench)
app.command(rich_help_panel=_LISTS)(passes)
app.command(rich_help_panel=_LISTS)(targets)
app.command(rich_help_panel="Example")(demo)
