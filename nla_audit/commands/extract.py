"""``nla-audit extract``: texts in, activations out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.model_options import model_parameters, placement
from nla_audit.commands.progress import Teller, counting
from nla_audit.commands.ray_options import pool_of, ray_parameters
from nla_audit.commands.seed_option import SEED
from nla_audit.errors import UserError
from nla_audit.files import must_be_parquet


def _run(**arguments: Any) -> None:
    from nla_audit.checkpoint.fetch import local_folder
    from nla_audit.runs.documents import Documents  # torch: keeps --help fast
    from nla_audit.runs.extract import Sampling, extract
    from nla_audit.runs.remote import load_target_in
    from nla_audit.wording import count

    console = Console(stderr=True)
    out: Path = arguments["out"]
    must_be_parquet(out, "activations")
    part, parts = _part(arguments["part"])
    documents = Documents(
        arguments["texts"],
        text_column=arguments["text_column"],
        id_column=arguments["id_column"],
        row_ids=arguments["row_ids"],
        lines=arguments["lines"],
        limit=arguments["documents"],
    )
    sampling = Sampling(
        positions_per_document=arguments["positions_per_document"],
        minimum_position=arguments["minimum_position"],
        max_tokens=arguments["max_tokens"],
        seed=arguments["seed"],
    )
    with pool_of(arguments) as pool:
        # What is fetched here shows its own progress.
        model = local_folder(arguments["model"]) if pool is None else arguments["model"]
        with console.status("loading the model"):
            target = load_target_in(
                pool,
                model,
                layer_index=arguments["layer"],
                placement=placement(arguments),
                force=arguments["force"],
                notice=Teller(console).say,
            )
        with counting(console) as tell:
            done = extract(
                target,
                documents,
                out,
                sampling=sampling,
                part=part,
                parts=parts,
                token_budget=arguments["batch_tokens"],
                arguments=arguments,
                progress=tell,
                notice=tell.say,
            )
    left_out = [
        f"{count(done.too_short, 'document')} too short" if done.too_short else "",
        f"{count(done.unusable, 'activation')} zero or not finite" if done.unusable else "",
    ]
    notes = "; ".join(note for note in left_out if note)
    console.print(
        Text(
            f"{out}: {count(done.rows, 'activation')} of width {done.d_model} from "
            f"{count(done.documents - done.too_short, 'document')}"
            + (f" (left out: {notes})" if notes else "")
        ),
        soft_wrap=True,
    )


def _part(text: str) -> tuple[int, int]:
    """``"2/4"`` as ``(1, 4)``: the second of four parts."""
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first) - 1, int(second)
    raise UserError(f'--part "{text}": write which of how many, from 1/{second or "4"} on')


command = click.Command(
    "extract",
    callback=_run,
    params=[
        click.Argument(["model"], metavar="MODEL"),
        click.Argument(["texts"], metavar="TEXTS...", nargs=-1, required=True),
        click.Option(
            ["--layer"],
            type=click.IntRange(min=0),
            required=True,
            metavar="K",
            help="Read the output of block K, counted from 0 (hidden_states[K+1]).",
        ),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            required=True,
            help="Parquet file to write; a record of the run is put beside it.",
        ),
        click.Option(
            ["--positions-per-document"],
            type=click.IntRange(min=1),
            default=5,
            show_default=True,
            metavar="N",
            help="Positions drawn from each document.",
        ),
        click.Option(
            ["--minimum-position"],
            type=click.IntRange(min=0),
            default=50,
            show_default=True,
            metavar="N",
            help="Draw no position before this one.",
        ),
        click.Option(
            ["--max-tokens"],
            type=click.IntRange(min=1),
            default=2048,
            show_default=True,
            metavar="N",
            help="Cut documents to this many tokens.",
        ),
        click.Option(
            ["--text-column"],
            default="text",
            show_default=True,
            metavar="NAME",
            help="Column or JSON key that holds the text.",
        ),
        click.Option(
            ["--id-column"],
            metavar="NAME",
            help="Column of document ids.  [default: doc_id or id, else file name and row]",
        ),
        click.Option(
            ["--row-ids"],
            is_flag=True,
            help="Make document ids of file name and row, whatever columns there are.",
        ),
        click.Option(["--lines"], is_flag=True, help="Each line of a .txt is a document."),
        click.Option(
            ["--documents"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Read the first N documents only.",
        ),
        click.Option(
            ["--part"],
            default="1/1",
            show_default=True,
            metavar="I/N",
            help="Read the I-th of N parts of the documents, to divide them among machines.",
        ),
        click.Option(
            ["--batch-tokens"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens of a batch.  [default: by device]",
        ),
        click.Option(
            ["--seed"],
            type=SEED,
            default=0,
            show_default=True,
            help="With a document's id decides its positions.",
        ),
        *model_parameters(),
        *ray_parameters(),
        click.Option(["--force"], is_flag=True, help="Read an AV or AR as if it were a target."),
    ],
    help=(
        "Extract activations of MODEL from texts.\n\n"
        "MODEL is a folder or owner/name[@revision][/subfolder] on the Hub. TEXTS are .txt, "
        ".jsonl or .parquet files, folders of them, or hf://datasets/owner/name[@revision]/path, "
        "whose files are fetched one by one. The positions read in a document depend on its id "
        "and the seed only. A run that was stopped goes on where it was when the same command is "
        "given again.\n\n"
        "\b\nExample:\n"
        "  nla-audit extract Qwen/Qwen3-8B texts.jsonl --layer 24 --out activations.parquet"
    ),
)
