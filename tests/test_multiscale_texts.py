"""What ``multiscale`` says of texts: stages, orders of worth, lengths, perplexity; all planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from nla_audit.analyzers import registry
from nla_audit.analyzers._multiscale_verdict import CANNOT_TELL
from nla_audit.analyzers._needs import ADAPTS, AGAINST, HARDLY, _needs, lengths_and_needs
from nla_audit.analyzers._order import NO_FALL, order_of_worth
from nla_audit.analyzers._ranks import rank_correlation, spearman
from nla_audit.analyzers._stages import ALL, NONE, SOME, _cut, first_parts, links_named, stages_of
from nla_audit.errors import UserError
from nla_audit.findings import Finding
from nla_audit.table.completions import Completions, from_frame
from nla_audit.table.prefix_table import prefixes_from_frame
from nla_audit.world.sweep.prefix_texts import OTHER, PLAIN, plant_needs, plant_worths
from nla_audit.world.sweep.stages import BEFORE, SEGMENTED, STAGE, PlantedStage, plant_stages


def multiscale(table: object, **options: object) -> Finding:
    return registry()["multiscale"].run(table, **options)


class TestStages:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("case", "says"),
        [
            (PlantedStage("all", omit=0.05), ALL),
            (PlantedStage("half", omit=0.5), SOME),
            (PlantedStage("late", omit=0.1, late=True), NONE),
        ],
        ids=lambda value: getattr(value, "name", value),
    )
    def test_planted_shares_are_found(self, case: PlantedStage, says: str) -> None:
        planted = plant_stages(case, activations=200, seed=0)
        table = from_frame(planted.completions, reference=BEFORE)
        finding = multiscale(table, chain=(f"{BEFORE},{STAGE}",))
        stages = {row["kind"]: row for row in finding.tables["stages"].to_dicts()}
        chain, segments = stages["chain"], stages["separators"]
        truth = planted.said_within(first_parts(table, BEFORE, STAGE))
        assert chain["said_first"] == pytest.approx(truth, abs=0.06)
        assert chain["said_first_low"] <= truth <= chain["said_first_high"]
        assert chain["floor"] == pytest.approx(planted.floor, abs=0.05)
        assert chain["chance"] < 0.05
        assert chain["says_first"] == says
        assert segments["stage"] == f"{SEGMENTED}, segment 2"
        # Other claims about the same subject count as said again, and the interval allows for it.
        assert 0 <= segments["repeated"] - planted.repeated <= 0.08
        assert segments["repeated_low"] <= planted.repeated <= segments["repeated_high"]
        assert finding.headline[STAGE]["said_first"] == chain["said_first"]
        if case.late:
            assert chain["said_last"] > chain["said_first"] + 0.4

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("case", "seed"),
        [(PlantedStage("other", other=True), 1), (PlantedStage("a tenth", omit=0.9), 3)],
        ids=lambda value: getattr(value, "name", value),
    )
    def test_little_is_not_read_as_more(self, case: PlantedStage, seed: int) -> None:
        """Where matches are not told from chance, nothing is said of them."""
        planted = plant_stages(case, activations=200, seed=seed)
        table = from_frame(planted.completions, reference=BEFORE)
        chain = stages_of(table, [(BEFORE, STAGE)], seed).row(0, named=True)
        assert chain["says_first"] in (NONE, CANNOT_TELL)
        assert chain["said_first"] is None or chain["said_first"] < 0.15

    def test_first_tokens_are_as_many_as_the_predecessor_has(self) -> None:
        rows = [
            ("a", 0, "one two three", 3.0),
            ("b", 0, "uno dos tres cuatro cinco seis", 6.0),
            ("a", 1, "one two", 2.0),
            ("b", 1, "uno", 1.0),
            ("b", 2, "no predecessor", 2.0),
            ("a", 3, "one", 1.0),
            ("b", 3, "... !", 2.0),
        ]
        table = _table(rows)
        assert first_parts(table, "a", "b") == {0: len("uno dos tres"), 1: len("uno"), 3: 0}

    def test_a_successor_is_read_beside_another_sample(self) -> None:
        """Models that draw with the same numbers say nearly the same in samples of one number."""
        rows = [
            (model, idx, sample, f"{sample} claim number {idx} of a long list of claims")
            for model in ("a", "b")
            for idx in range(30)
            for sample in (0, 1)
        ]
        frame = pl.DataFrame(rows, schema=["model", "idx", "sample", "explanation"], orient="row")
        assert {
            (cut.key.sample, cut.before[0], cut.first[0])
            for cut in _cut(from_frame(frame), "a", "b")
        } == {(0, "0", "1"), (1, "1", "0")}
        one = frame.filter((pl.col("model") == "b") | (pl.col("sample") == 0))
        assert len(list(_cut(from_frame(one), "a", "b"))) == 30, "each text is read beside one"

    @pytest.mark.parametrize("chain", ["a", "a,a", "a,nobody", ""])
    def test_what_is_no_chain_is_refused(self, chain: str) -> None:
        with pytest.raises(UserError, match="--chain"):
            links_named(_table([("a", 0, "x", 1.0), ("b", 0, "y", 1.0)]), [chain])

    def test_what_is_no_chain_is_refused_before_a_pair_is_opened(self) -> None:
        table = _table([("a", 0, "x", 1.0), ("b", 0, "y", 1.0)])
        with pytest.raises(UserError, match="--chain"):
            multiscale(table, chain=("a,nobody",), pair="nowhere", activations="nowhere")

    def test_links_of_several_chains_are_there_once(self) -> None:
        table = _table([(name, 0, "x", 1.0) for name in "abcd"])
        assert links_named(table, ["a,b,c", "a, b,d"]) == [("a", "b"), ("b", "c"), ("b", "d")]

    def test_few_texts_say_nothing(self) -> None:
        stages = multiscale(
            _table([("a", 0, "x", 1.0), ("b", 0, "y", 1.0)]), chain=("a,b",)
        ).tables["stages"]
        row = stages.row(0, named=True)
        assert (row["texts"], row["said_first"], row["says_first"]) == (1, None, "cannot tell")

    def test_a_model_whose_explanations_all_failed_has_no_prefixes(self, tmp_path: Path) -> None:
        rows = [("a", "tokens", 1, 0.1), ("a", "tokens", 2, 0.2)]
        schema = ["model", "unit", "length", "fve"]
        pl.DataFrame(rows, schema=schema, orient="row").write_csv(tmp_path / "p.csv")
        texts = [("a", idx, "a claim about one thing") for idx in range(30)]
        texts += [("b", idx, None) for idx in range(30)]
        frame = pl.DataFrame(texts, schema=["model", "idx", "explanation"], orient="row")
        finding = multiscale(from_frame(frame), prefixes=str(tmp_path / "p.csv"), chain=("a,b",))
        assert set(finding.headline) == {"a"}
        assert finding.tables["stages"].select("stage", "texts").rows() == [("b", 0)]

    def test_options_of_texts_need_texts(self) -> None:
        curve = pl.DataFrame({"model": "m", "unit": "tokens", "length": [1, 2], "fve": [0.1, 0.2]})
        for option in ({"chain": ("m,n",)}, {"base_model": "x"}, {"pair": "x"}):
            with pytest.raises(UserError, match="goes with a table of completions"):
                multiscale(prefixes_from_frame(curve), **option)


def _table(rows: list[tuple[str, int, str, float]]) -> Completions:
    schema = ["model", "idx", "explanation", "content_tokens"]
    return from_frame(pl.DataFrame(rows, schema=schema, orient="row"))


class TestRanks:
    def test_as_scipy_has_it(self) -> None:
        generator = np.random.default_rng(0)
        one, other = generator.integers(0, 6, (2, 40)).astype(float)
        assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
        found = rank_correlation(one, one + other, np.arange(40), 0)
        by_scipy = stats.spearmanr(one, one + other)
        assert found.rho.value == pytest.approx(by_scipy.statistic)
        assert found.p_value == pytest.approx(by_scipy.pvalue, abs=0.01)
        assert found.rho.low < found.rho.value < found.rho.high

    def test_documents_are_drawn_together(self) -> None:
        """Twins in one document make no interval narrower."""
        one, other = np.random.default_rng(1).normal(size=(2, 60))
        single = rank_correlation(one, other, np.arange(60), 0).rho
        twins = rank_correlation(
            np.repeat(one, 2), np.repeat(other, 2), np.repeat(np.arange(60), 2), 0
        ).rho
        assert twins.value == pytest.approx(single.value)
        assert twins.high - twins.low == pytest.approx(single.high - single.low, rel=0.1)

    def test_what_does_not_vary_has_none(self) -> None:
        assert np.isnan(rank_correlation(np.ones(20), np.arange(20.0), np.arange(20), 0).rho.value)


class TestLengths:
    @pytest.mark.parametrize(
        ("lengths", "noise", "said"),
        [
            ("follow", 0.3, ADAPTS),
            ("against", 0.3, AGAINST),
            ("fixed", 0.3, HARDLY),
            # Needs that two samples do not agree about hide whatever there is.
            ("fixed", 3.0, CANNOT_TELL),
        ],
    )
    def test_planted_lengths_are_told(self, lengths: str, noise: float, said: str) -> None:
        table = plant_needs(lengths, activations=128, seed=2, noise=noise)
        finding = multiscale(prefixes_from_frame(table, reference=PLAIN))
        rows = {row["model"]: row for row in finding.tables["lengths_and_needs"].to_dicts()}
        assert rows[OTHER]["lengths"] == said
        assert rows[OTHER]["p_value"] < 0.01 if said in (ADAPTS, AGAINST) else True
        assert rows[PLAIN]["rho"] is None, "its lengths are all the same"
        assert finding.headline[OTHER]["length_need_rho"] == rows[OTHER]["rho"]

    def test_the_need_is_where_four_fifths_are_reached(self) -> None:
        """Two texts, read where the level lies between two lengths."""
        rows = [
            ("p", idx, length, fve)
            for idx, top in ((0, 0.8), (1, 0.5), (2, -0.1))
            for length, fve in ((1, 0.0), (5, top / 2), (9, top))
        ]
        # Of one that was not read to its end 80 % of the whole are not known.
        rows += [("p", 3, length, fve) for length, fve in ((1, 0.0), (5, 0.4), (9, None))]
        rows += [("q", idx, length, 0.1) for idx, length in ((0, 3), (1, 4), (2, 5), (3, 6))]
        frame = pl.DataFrame(rows, schema=["model", "idx", "length", "fve"], orient="row")
        table = prefixes_from_frame(frame.with_columns(unit=pl.lit("tokens")), reference="p")
        assert dict(_needs(table).select("idx", "need").rows()) == {
            "0": pytest.approx(7.4),
            "1": pytest.approx(7.4),
        }

    def test_segments_have_lengths_of_their_own(self) -> None:
        needs = plant_needs("follow", activations=60, seed=3)
        other = needs.filter(pl.col("model") == OTHER)
        tokens = pl.col("text_tokens")
        ends = [(1, tokens // 2), (2, tokens)]
        segments = [
            other.with_columns(length=pl.lit(number, pl.Int64), unit=pl.lit("segments"), tokens=end)
            for number, end in ends
        ]
        table = prefixes_from_frame(pl.concat([needs, *segments], how="diagonal"), reference=PLAIN)
        rows = lengths_and_needs(table, 0).filter(pl.col("model") == OTHER)
        by_part = dict(rows.select("part", "mean_tokens").rows())
        assert by_part["text"] == pytest.approx(by_part["segment 1"] + by_part["segment 2"])
        assert (rows["rho_low"] > 0).all()


class TestOrder:
    @pytest.mark.parametrize(("worths", "sign"), [("falls", -1), ("rises", 1), ("same", 0)])
    def test_kinds_are_compared_at_the_same_place(self, worths: str, sign: int) -> None:
        texts, prefixes, gains = plant_worths(worths, activations=250, seed=0)
        found = order_of_worth(prefixes_from_frame(prefixes), from_frame(texts), None, 0)
        row = found.models.row(0, named=True)
        assert sign * row["kinds_rho_low"] >= 0 or sign == 0
        low, high = row["kinds_rho_low"], row["kinds_rho_high"]
        assert (high < 0, low > 0) == (sign < 0, sign > 0)
        assert np.sign(row["rho"]) == sign or abs(row["rho"]) < 0.1
        assert (row["p_value"] < 0.01) == (sign != 0)
        assert row["order"] == (NO_FALL if sign > 0 else CANNOT_TELL), "order_gain needs a pair"
        if sign:
            true = [gains[kind] for kind in found.kinds["kind"]]
            assert float(spearman(np.array(true), found.kinds["worth"].to_numpy())) > 0.7

    def test_texts_that_were_not_read_whole_are_left_out(self) -> None:
        _, prefixes, _ = plant_worths("falls", activations=40, seed=0)
        cut = prefixes.filter(~((pl.col("idx") < 10) & (pl.col("length") == 2)))
        every, fewer = (
            order_of_worth(prefixes_from_frame(table), None, None, 0).models["texts"][0]
            for table in (prefixes, cut)
        )
        assert fewer < every


def test_perplexity_is_that_of_the_base_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    from nla_audit.nla.likelihood import token_losses
    from tests.pairs import tiny

    tokenizer = tiny.make_tokenizer(bos=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["the cold harbour of the morning is grey", "grey", "", "a grey morning in the harbour"]
    found = token_losses(model, tokenizer, texts)
    for text, losses in zip(texts, found, strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        if len(ids) == 1:
            assert len(losses) == 0
            continue
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        each = [-float(log_probs[place, one]) for place, one in enumerate(ids[1:])]
        assert losses == pytest.approx(each, abs=1e-5)
    rows = [(name, idx, text, 5.0) for name in "ab" for idx, text in enumerate(texts)]
    finding = multiscale(_table(rows), base_model=str(tmp_path))
    whole = finding.tables["perplexity"].filter(pl.col("tokens").is_null())
    every = np.concatenate(found)
    assert whole["perplexity"].to_list() == pytest.approx([np.exp(every.mean())] * 2)
    assert whole["times_reference"].to_list() == [None, pytest.approx(1.0)]
    four = finding.tables["perplexity"].filter(pl.col("tokens") == 4).row(0, named=True)
    first = np.concatenate([losses[:4] for losses in found if len(losses) >= 4])
    assert four["perplexity"] == pytest.approx(np.exp(first.mean()))
    assert finding.headline["b"]["perplexity_times_reference"] == pytest.approx(1.0)
