"""The entry point ``nla-audit``: which commands there are, and how errors leave the program."""

from __future__ import annotations

import atexit
import copy
import errno
import functools
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from nla_audit import __version__
from nla_audit.commands.listing import analyzer_names, probe_names
from nla_audit.errors import UserError
from nla_audit.files import full_disk, only_run, real
from nla_audit.interrupt import INTERRUPTED, end_in_time, leave
from nla_audit.quiet import quiet_libraries
from nla_audit.terminal_streams import drop_output, flush, hold_closed, take_any_text

#: Commands that are no analyzers: name → where its ``click.Command`` is, and its one-line help.
#: A module is imported only when its command is called.
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "audit": (
        "nla_audit.commands.audit:command",
        "Run every analyzer that the table allows and write a report.",
    ),
    "report": (
        "nla_audit.commands.report:command",
        "Render a report again from its findings.json.",
    ),
    "demo": (
        "nla_audit.commands.demo:command",
        "Audit a planted sweep, and show the truth beside the estimate.",
    ),
    "explain": (
        "nla_audit.commands.explain:command",
        "Explain activations with a pair's AV and score them with its AR.",
    ),
    "extract": (
        "nla_audit.commands.extract:command",
        "Read activations of a model out of texts.",
    ),
    "push": (
        "nla_audit.commands.publish:push_command",
        "Publish completions, a pair or a report on the Hub.",
    ),
    "pull": (
        "nla_audit.commands.publish:pull_command",
        "Fetch a pair, completions or a report from the Hub.",
    ),
    "inspect": (
        "nla_audit.commands.inspect:command",
        "Say what a checkpoint is, and what is wrong with it.",
    ),
    "score": (
        "nla_audit.commands.score:command",
        "Read the explanations of a table with any AR and score them.",
    ),
    "train": (
        "nla_audit.commands.train:command",
        "Train NLAs at several length penalties from a recipe, and audit them.",
    ),
    "dynamics": (
        "nla_audit.commands.dynamics:command",
        "Compare RL runs: has the length settled, and who is ahead at equal time.",
    ),
    "stego": (
        "nla_audit.commands.stego:command",
        "Probe for a code: change the words, keep the meaning, measure FVE again.",
    ),
    "attribution": (
        "nla_audit.commands.attribution:command",
        "Which words, claims and order of claims carry the reconstruction.",
    ),
    "sensitivity": (
        "nla_audit.commands.sensitivity:command",
        "Plant a concept: when is it said, and when only carried.",
    ),
    "concepts": (
        "nla_audit.commands.concepts:command",
        "List the contrast sets that ship, and say what confounds one.",
    ),
}

#: Exit codes: the user can mend it; who read our output has gone (128 + SIGPIPE).
USER_ERROR, NOBODY_READS = 2, 141
#: Options that name what a command writes.
_OUTPUTS = ("out", "keep_scores")
#: Decides itself whether it writes, and where: several processes may train together.
_LOCKS_ITSELF = "train"
#: What writing to a stream says that leads nowhere: full, over a quota, broken, closed.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF)


class _Commands(click.Group):
    """A group whose commands are imported when called, and listed without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        derived = {**analyzer_names(), **probe_names()}
        return [*SUBCOMMANDS, *(name for name in derived if name not in SUBCOMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in SUBCOMMANDS:
            module, attribute = SUBCOMMANDS[cmd_name][0].split(":")
            command: click.Command = getattr(import_module(module), attribute)
            return _told_all(command if cmd_name == _LOCKS_ITSELF else _alone(command))
        from nla_audit import analyzers, probes
        from nla_audit.commands.analyze import command_for  # keeps --help fast

        card = analyzers.registry().get(cmd_name) or probes.registry().get(cmd_name)
        if card is None:
            near = get_close_matches(cmd_name, self.list_commands(ctx), n=1)
            hint = f'did you mean "{near[0]}"?' if near else "nla-audit --help lists all"
            raise UserError(f'no command "{cmd_name}": {hint}')
        return _told_all(_alone(command_for(card)))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names with their one-line help; importing each for it would take too long."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in SUBCOMMANDS.items()])
        with formatter.section("Analyzers"):
            formatter.write_dl(list(analyzer_names().items()))
        if probes := probe_names():
            with formatter.section("Probes"):
                formatter.write_dl(list(probes.items()))


def _told_all(command: click.Command) -> click.Command:
    """``command``, of which every option that is given says something.

    A variable that a script left empty is no default, and as a path it would be the current folder.
    """
    parse = command.parse_args

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        rest = parse(ctx, list(args))
        given, _, order = command.make_parser(ctx).parse_args(list(args))
        for parameter in order:
            if any(not text.strip() for text in _texts(given.get(parameter.name))):
                name = parameter.get_error_hint(ctx)
                raise UserError(
                    f"{name} is empty: give a value, or leave it out "
                    f"(see {ctx.command_path} --help)"
                )
        return rest

    checked = copy.copy(command)
    checked.parse_args = parse_args  # type: ignore[method-assign]
    return checked


def _texts(value: Any) -> Iterator[str]:
    """The texts of one option as they were given, of one that takes several too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _alone(command: click.Command) -> click.Command:
    """``command`` as the only one that writes where it writes, and through symbolic links."""
    run: Callable[..., Any] | None = command.callback
    if run is None:
        return command

    @functools.wraps(run)
    def alone(**arguments: Any) -> Any:
        with ExitStack() as locks:
            for name in _OUTPUTS:
                path = arguments.get(name)
                if not isinstance(path, Path):
                    continue
                if path.is_symlink():
                    arguments[name] = path = real(path)
                # A file's missing folder is the command's to judge.
                if name == "out" or path.parent.is_dir():
                    locks.enter_context(only_run(path))
            return run(**arguments)

    locked = copy.copy(command)
    locked.callback = alone
    return locked


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="nla-audit")
def cli() -> None:
    """Audit natural language autoencoders: what their explanations carry, what a length penalty
    drops, and whether to believe them.

    Each command reads a table of completions; `nla-audit COMMAND --help` says more.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process.

    An error that the user can mend is one line on standard error and exit code 2, and Ctrl-C is
    exit code 130; any other exception is a bug and keeps its traceback.
    """
    hold_closed()
    end_in_time()
    quiet_libraries()
    atexit.register(gc.freeze)  # what is left goes as a whole, without a search for cycles
    code = run(arguments)
    if code == INTERRUPTED:
        leave()
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` by default) and return the exit code."""
    take_any_text()
    try:
        code = cli.main(
            None if arguments is None else list(arguments),
            prog_name="nla-audit",
            standalone_mode=False,
        )
        flush()  # here, where a full disk behind it can still be told of
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USER_ERROR
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return NOBODY_READS
    except BaseException as error:  # a panic of polars is no Exception
        message = _told(error)
        if message is None:
            raise
        if isinstance(error, OSError) and error.filename is None:
            drop_output()
        return _fail(message)
    return code if isinstance(code, int) else 0


def _told(error: BaseException) -> str | None:
    """The line that a user can do something with; ``None``: it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return error.format_message() + hint
    name = getattr(error, "filename", None)
    reason = full_disk(error)
    if reason is not None:
        where = "" if name is None else f"{name}: "
        return f"{where}cannot write ({reason}): free some space and run the same command again"
    if isinstance(error, OSError) and name is not None:
        return f"{name}: {error.strerror}: check the path and its permissions"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"cannot write ({error.strerror}): make room, or send the output elsewhere"
    return None


def _fail(message: str) -> int:
    """Print one line, whatever control characters a stranger's table put into the message."""
    line = "".join(sign if sign.isprintable() else " " for sign in message)
    with suppress(OSError):  # standard error may be what cannot be written
        click.echo(f"error: {line}", err=True)
    return USER_ERROR


if __name__ == "__main__":
    main()
