"""The first two stages: a target model, and a table of its activations."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.checkpoint.tokenizer_check import save_tokenizer
from nla_audit.errors import UserError
from nla_audit.files import whole_folder, write_parquet
from nla_audit.nla.batching import by_token_budget
from nla_audit.runs.target import TargetModel, load_target
from nla_audit.train.dataset import (
    Dataset,
    make_dataset,
    read_training_table,
    write_dataset,
)
from nla_audit.train.labeler import write_missing_gold
from nla_audit.train.layout import Layout
from nla_audit.train.log_probs import default_token_budget
from nla_audit.train.pair import layer_of, load_config, load_tokenizer, placement_of
from nla_audit.train.recipe import path_of
from nla_audit.train.recipe_data import World
from nla_audit.train.seeds import Use, derived, stream
from nla_audit.train.texts import texts_of_recipe

#: Called with what is being done, how much of it is done, and how much there is.
Tell = Callable[[str, int, int], None]


def target_reference(layout: Layout) -> str | Path:
    """The target: the recipe's model, or the one trained on the recipe's world."""
    model = layout.recipe.target.model
    if model is None:
        return layout.target / "model"
    local = path_of(model, layout.folder)
    return local if local.is_dir() else model


def make_target(layout: Layout, tell: Tell) -> None:
    """Train the target of a world; a model that exists needs nothing."""
    world, key = layout.recipe.target.world, layout.key("target")
    if world is None or layout.is_done(layout.target, key):
        return
    from nla_audit.world.toy.language import Language
    from nla_audit.world.toy.target import (
        make_tokenizer,
        train_target,
        untrained_model,
    )

    pair, seed = layout.recipe.pair, derived(layout.recipe.seed, Use.TARGET)
    tokenizer = make_tokenizer(pair.marker, (pair.av_template, pair.ar_template))
    model = untrained_model(tokenizer, d_model=world.d_model, blocks=world.blocks, seed=seed)
    placement = placement_of(layout.recipe.target)
    model = placement.place(model)
    loss = train_target(
        model,
        tokenizer,
        Language(seed, world.peakiness),
        seed=seed,
        steps=world.steps,
        batch_size=world.batch_size,
        length=world.words,
        learning_rate=world.learning_rate,
        progress=lambda step, _loss: tell("target", step, world.steps),
    )
    folder = layout.target / "model"
    shutil.rmtree(folder, ignore_errors=True)
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        save_tokenizer(tokenizer, partial)
    layout.mark_done(layout.target, key, nats_per_word=loss)


def make_activations(layout: Layout, tell: Tell) -> None:
    """The table of activations, from a world, from documents, or a ready-made table split."""
    folder, key = layout.activations.parent, layout.key("activations")
    if layout.is_done(folder, key):
        return
    recipe, layer_index = layout.recipe, None
    if recipe.data.table is None:
        layer_index = layer_of(recipe.target, load_config(target_reference(layout)))
    if recipe.target.world is not None and recipe.data.table is None and recipe.data.texts is None:
        dataset = _from_world(layout, recipe.target.world, tell)
    elif recipe.data.table is not None:
        dataset = read_training_table(
            path_of(recipe.data.table, layout.folder),
            held_out_share=recipe.data.held_out_share,
            seed=recipe.seed,
        )
    else:
        dataset = _from_texts(layout, tell)
    if recipe.data.labeler is not None:
        dataset = write_missing_gold(dataset, recipe.data.labeler, folder / "gold-cache", tell)
    write_dataset(dataset, layout.activations, layer_index=layer_index)
    layout.mark_done(
        folder,
        key,
        activations=len(dataset.idx),
        documents=len(set(dataset.doc_ids)),
        held_out=int(dataset.is_held_out.sum()),
    )


def _from_world(layout: Layout, world: World, tell: Tell) -> Dataset:
    from nla_audit.world.toy.corpus import make_corpus
    from nla_audit.world.toy.language import Language

    recipe, data = layout.recipe, layout.recipe.data
    tokenizer = load_tokenizer(layout.target / "model")
    corpus = make_corpus(
        Language(derived(recipe.seed, Use.TARGET), world.peakiness),
        tokenizer,
        stream(recipe.seed, Use.DOCUMENTS),
        documents=world.documents,
        words=world.words,
        positions_per_document=data.positions_per_document,
        first_position=data.first_position,
    )
    activations = extracted(_target(layout), corpus.token_ids, corpus.positions, tell)
    facts = pl.DataFrame(corpus.facts).with_row_index("idx")
    write_parquet(facts, layout.activations.with_name("facts.parquet"))
    return make_dataset(
        activations,
        doc_ids=[f"document {document}" for document in corpus.document_of],
        positions=[place for places in corpus.positions for place in places],
        source_texts=corpus.source_texts,
        explanations=corpus.explanations,
        held_out_share=data.held_out_share,
        seed=recipe.seed,
    )


def _from_texts(layout: Layout, tell: Tell) -> Dataset:
    recipe, data = layout.recipe, layout.recipe.data
    texts = texts_of_recipe(recipe, layout.folder)
    target = _target(layout)
    rng = stream(recipe.seed, Use.POSITIONS)
    token_ids, positions, kept = [], [], []
    for number, ids in enumerate(target.token_ids(texts.texts, data.context_tokens)):
        available = target.candidates(ids, data.first_position)
        if not available:
            continue
        wanted = min(data.positions_per_document, len(available))
        token_ids.append(ids)
        positions.append(sorted(rng.choice(available, wanted, replace=False).tolist()))
        kept.append(number)
    if not kept:
        raise UserError(
            f"{data.texts}: no document has more than {data.first_position} tokens; "
            "give longer texts or lower data.first_position"
        )
    places = [(row, place) for row, taken in enumerate(positions) for place in taken]
    return make_dataset(
        extracted(target, token_ids, positions, tell),
        doc_ids=[texts.doc_ids[kept[row]] for row, _ in places],
        positions=[place for _, place in places],
        source_texts=[target.text_up_to(token_ids[row], place) for row, place in places],
        explanations=[texts.gold[kept[row]] for row, _ in places],
        held_out_share=data.held_out_share,
        seed=recipe.seed,
    )


def _target(layout: Layout) -> TargetModel:
    """The target up to the block that is read.

    Raises:
        UserError: as :func:`nla_audit.runs.target.load_target`.
    """
    reference, target = target_reference(layout), layout.recipe.target
    layer_index = layer_of(target, load_config(reference))
    return load_target(reference, layer_index=layer_index, placement=placement_of(target))


def extracted(
    target: TargetModel,
    documents: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    tell: Tell,
) -> npt.NDArray[np.float32]:
    """Activations ``[sum of positions, d_model]`` of token-id ``documents``, in their order."""
    found: dict[int, npt.NDArray[np.float32]] = {}
    budget = default_token_budget(target.device.type)
    for group in by_token_budget([len(ids) for ids in documents], budget):
        taken = [positions[place] for place in group]
        vectors = target.activations([documents[place] for place in group], taken)
        ends = np.cumsum([len(some) for some in taken])[:-1]
        found |= dict(zip(group, np.split(vectors, ends), strict=True))
        tell("activations", len(found), len(documents))
    return np.concatenate([found[place] for place in range(len(documents))])
