"""``nla-audit push`` and ``nla-audit pull``: the Hub, through huggingface_hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.errors import UserError


def _push(**arguments: Any) -> None:
    from nla_audit.publish.cards import card_of  # keeps --help fast
    from nla_audit.publish.contents import CARD, contents_of
    from nla_audit.publish.transfer import check_repository, push
    from nla_audit.report.escape import safe_text
    from nla_audit.wording import count

    console = Console(stderr=True)
    repository: str = arguments["repository"]
    check_repository(repository)
    with console.status("reading what is to go up"):
        contents = contents_of(arguments["path"], with_base=arguments["with_base"])
        if arguments["completions"] and contents.kind != "pair":
            raise UserError(f"--completions is for pairs, and {arguments['path']} is none")
        card = card_of(
            contents,
            repository,
            completions=arguments["completions"],
            ruler=arguments["ar"],
            base_model=arguments["base_model"],
        )
    for note in contents.left_out:
        console.print(Text(f"left out: {safe_text(note)}", style="yellow"), soft_wrap=True)
    if arguments["dry_run"]:
        sizes = {name: file.stat().st_size for name, file in contents.files.items()}
        sizes[CARD] = len(card.encode())
        where = f"{contents.repository_type} {repository}"
        if arguments["revision"]:
            where += f" at {arguments['revision']}"
        # Names and card are partly those of the checkpoint; what goes up stays as it is.
        lines = [f"{size:>15,}  {safe_text(name)}" for name, size in sorted(sizes.items())]
        lines.append(f"{sum(sizes.values()):>15,}  bytes of {contents.kind} would go to {where}")
        click.echo("\n".join([*lines, "", safe_text(card.rstrip(), newlines=True)]))
        return
    done = push(
        contents,
        card,
        repository,
        private=arguments["private"],
        branch=arguments["revision"],
        message=arguments["message"],
    )
    if done.card_kept:
        console.print(
            Text(f"kept the {CARD} that is there: nla-audit did not write it", style="yellow")
        )
    files = count(len(contents.files) + (not done.card_kept), "file")
    console.print(Text(f"{repository}: {files} of {contents.kind}: {done.url}"), soft_wrap=True)


def _pull(**arguments: Any) -> None:
    from nla_audit.files import write_json  # keeps --help fast
    from nla_audit.publish.contents import contents_of
    from nla_audit.publish.transfer import pull
    from nla_audit.record import record_path, run_record
    from nla_audit.report.escape import safe_text
    from nla_audit.wording import count

    console = Console(stderr=True)
    out: Path = arguments["out"]
    done = pull(arguments["address"], out)
    record = {
        **run_record("pull", arguments, ["huggingface_hub"]),
        "hub_commit": done.commit,
        "files": done.files,
        "left_out": done.left_out,
    }
    write_json(record, record_path(out))
    for name in done.left_out:
        console.print(Text(f"left there: {safe_text(name)}", style="yellow"), soft_wrap=True)
    try:
        what: str = contents_of(out).kind
    except UserError as error:
        what = f"none of ours ({safe_text(error)})"
    console.print(
        Text(f"{out}: {count(len(done.files), 'file')} of commit {done.commit[:12]}: {what}"),
        soft_wrap=True,
    )


push_command = click.Command(
    "push",
    callback=_push,
    params=[
        click.Argument(["path"], type=click.Path(path_type=Path), metavar="PATH"),
        click.Argument(["repository"], metavar="OWNER/NAME"),
        click.Option(["--private"], is_flag=True, help="Make the repository private."),
        click.Option(
            ["--revision"], metavar="BRANCH", help="Branch to write to; made if it is not there."
        ),
        click.Option(
            ["--dry-run"], is_flag=True, help="Print what would go up, card included, and stop."
        ),
        click.Option(
            ["--completions"],
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="TABLE",
            help="For a pair: completions from which the card takes its FVE.",
        ),
        click.Option(
            ["--ar"],
            metavar="NAME",
            help="Ruler whose FVE the card states, where a table holds several.",
        ),
        click.Option(
            ["--base-model"],
            metavar="OWNER/NAME",
            help="The model whose activations are explained.  [default: as recorded]",
        ),
        click.Option(
            ["--with-base"], is_flag=True, help="Also publish plain models beside a pair."
        ),
        click.Option(
            ["--message"],
            default="Upload with nla-audit",
            show_default=True,
            help="Message of the commit.",
        ),
    ],
    help=(
        "Publish completions, a pair or a report on the Hub, with a generated card.\n\n"
        "PATH is a table of completions or a folder of such, a checkpoint or a folder of "
        "checkpoints, or a report of `nla-audit audit`. Pairs become model repositories, the "
        "others data sets. A README.md on the Hub that was written by hand stays.\n\n"
        "\b\nExample:\n"
        "  nla-audit push completions.parquet lab/qwen3-8b-l24-completions --dry-run"
    ),
)

pull_command = click.Command(
    "pull",
    callback=_pull,
    params=[
        click.Argument(["address"], metavar="ADDRESS"),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            required=True,
            help="Folder to write: new or empty.",
        ),
    ],
    help=(
        "Fetch a pair, completions or a report from the Hub into a folder.\n\n"
        "ADDRESS is owner/name for a pair and datasets/owner/name for completions and reports, "
        "with @revision and /folder behind it where wanted. Pickles and code are not fetched.\n\n"
        "\b\nExamples:\n"
        "  nla-audit pull lab/qwen3-8b-nla --out pair\n"
        "  nla-audit pull datasets/lab/qwen3-8b-l24-completions@v1 --out completions"
    ),
)
