"""The command line: one file a command; this one puts them together and turns errors into exit statuses.

0 is success, 2 bad input or config, 130 an interrupt, 143 a termination (SIGTERM), 1 a fault of our own. One message on
stderr; a traceback with ``--debug`` alone.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from metammf.errors import MetaMMFError, out_of_memory

_EXPLAIN = """Show how much each modality of an item counts, for its fused vector or for its score for a user.

Of the columns, `leave_one_out` says how far the item's vector moves when the modality is taken away or, with --user or
--watched, by how much the score falls: below zero, the score is higher without the modality, which speaks against the item.
`gradient_x_input` is the modality's part of the vector's squared length, or of the score, to first order; below zero, it pulls
the other way. `share` is the size of `leave_one_out`, its sign left out, over the sum of these sizes: all of them add up to 1."""

app = App(
    name="metammf",
    help="Multimodal recommendation for micro-videos: import, train, evaluate, recommend, explain.",
    help_epilogue="Add --debug to any command for a traceback.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
# Named by their place, so that `--help` imports none of them.
app.command("metammf.cli.demo:demo", name="demo", help="Train and compare on the embedded world; write a report.")
app.command("metammf.cli.data:app", name="data", help="Import, describe, generate and export data sets.")
app.command("metammf.cli.train:train", name="train", help="Train a model into a run folder.")
app.command("metammf.cli.evaluate:evaluate", name="evaluate", help="Measure a run on its test or validation part.")
app.command("metammf.cli.compare:compare", name="compare", help="Compare models: same split, protocol and budget.")
app.command("metammf.cli.recommend:recommend", name="recommend", help="Recommend items to users.")
app.command("metammf.cli.similar:similar", name="similar", help="Show the items nearest to an item.")
app.command("metammf.cli.embed:embed", name="embed", help="Turn items' content into vectors.")
app.command("metammf.cli.explain:explain", name="explain", help=_EXPLAIN)
app.command("metammf.cli.runs:runs", name="runs", help="List runs.")
app.command(
    "metammf.cli.study:study", name="study", help="Run one of the paper's studies; write table, figure and page."
)
app.command("metammf.cli.report:report", name="report", help="Make the report of a folder again.")
app.command("metammf.cli.recipes:recipes", name="recipes", help="List the recipes that ship with the package.")


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as tidily as Ctrl-C does."""


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated("terminated")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; as a script, exit with it."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [word for word in tokens if word != "--debug"]
    if arguments is None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    status = _run(tokens, debug)
    if arguments is None:
        sys.exit(status)
    return status


def _run(tokens: list[str], debug: bool) -> int:
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except (BrokenPipeError, SystemExit) as error:
        # Whoever read our output has had enough of it, `head` for one; rich makes an exit of that.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        else:
            _say(_message(error))
        return _status(error)


def _status(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 143 if isinstance(error, Terminated) else 130
    told = isinstance(error, MetaMMFError | CycloptsError | OSError) or out_of_memory(error) is not None
    return 2 if told else 1


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, MetaMMFError):
        return str(error)
    if isinstance(error, CycloptsError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        # Where a finished file was to be moved into place, the second name is the one that the user knows.
        return f"{error.filename2 or error.filename or 'input or output'}: {error.strerror or error}"
    if (reason := out_of_memory(error)) is not None:
        return reason
    return f"a fault of metammf's own ({type(error).__name__}: {error}); --debug shows where"


def _say(message: str) -> None:
    sys.stderr.write(f"metammf: {message}\n")


if __name__ == "__main__":
    main()
