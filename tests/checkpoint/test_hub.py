"""Pairs on the Hub, against a server on this machine that speaks its HTTP."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.checkpoint.fetch import HubReference, local_folder, parse_reference
from nla_audit.checkpoint.load import Placement, load
from nla_audit.errors import UserError
from nla_audit.nla.injection import Injection
from tests.hub_contents import TOKEN, FakeHub, files_in
from tests.pairs import tiny
from tests.pairs.golden import GOLDEN

FLOAT32 = Placement(dtype="float32", device="cpu")
TEXTS = ["a story about a fair", "formal register"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pair(tmp_path_factory.mktemp("pair"), "qwen3", Injection("add", block=1))


def fetched(hub: FakeHub) -> set[str]:
    """The files whose content was asked for."""
    asked = hub.asked(r"/resolve/", "GET") + hub.asked(r"/resolve/", "HEAD")
    return {request.path.partition("/resolve/")[2].partition("/")[2] for request in asked}


class TestReference:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("lab/x", HubReference("lab/x", None, None)),
            ("hf://lab/x", HubReference("lab/x", None, None)),
            ("lab/x/", HubReference("lab/x", None, None)),
            ("lab/x@v1", HubReference("lab/x", "v1", None)),
            ("lab/x/rl/p0.0", HubReference("lab/x", None, "rl/p0.0")),
            ("lab/x@v1/rl/p0.0/", HubReference("lab/x", "v1", "rl/p0.0")),
            ("lab/x@refs%2Fpr%2F1/av", HubReference("lab/x", "refs/pr/1", "av")),
            ("./lab/x", None),
            ("/lab/x", None),
            ("~/lab/x", None),
            ("x", None),
            ("lab/x y", None),
        ],
    )
    def test_parse(self, text: str, wanted: HubReference | None) -> None:
        assert parse_reference(text) == wanted


class TestPairs:
    def test_halves_in_subfolders(self, hub: FakeHub, pair: Path) -> None:
        hub.add("lab/pair", files_in(pair))
        there = load(av="lab/pair/av", ar="lab/pair/ar", placement=FLOAT32)
        here = load(av=pair / "av", ar=pair / "ar", placement=FLOAT32)
        assert there.verbalizer is not None
        assert here.verbalizer is not None
        assert there.reconstructor is not None
        assert here.reconstructor is not None
        vectors = np.eye(2, tiny.D_MODEL, dtype=np.float32)
        np.testing.assert_array_equal(
            there.verbalizer.first_logits(vectors), here.verbalizer.first_logits(vectors)
        )
        np.testing.assert_array_equal(
            there.reconstructor.reconstruct(TEXTS), here.reconstructor.reconstruct(TEXTS)
        )
        assert not any(path.startswith("base/") for path in fetched(hub))

    def test_both_halves_in_one_repository(self, hub: FakeHub, pair: Path) -> None:
        hub.add("lab/pair", files_in(pair))
        folder = local_folder("lab/pair")
        assert {child.name for child in folder.iterdir()} == {"av", "ar", "base"}

    def test_a_checkpoint_at_the_root_without_what_it_does_not_need(
        self, hub: FakeHub, pair: Path
    ) -> None:
        own = files_in(pair / "av")
        clutter = {
            "README.md": b"# card",
            "optimizer.pt": b"x",
            "training_args.bin": b"x",
            "pytorch_model.bin": b"x",
            "checkpoint-10/model.safetensors": b"x",
            "checkpoint-10/config.json": b"{}",
        }
        hub.add("lab/x-av", {**own, **clutter})
        assert load(av="lab/x-av", placement=FLOAT32).verbalizer is not None
        assert fetched(hub) == set(own)

    def test_large_files_come_from_another_host(self, hub: FakeHub, pair: Path) -> None:
        hub.add("lab/x", files_in(pair / "av"))
        folder = local_folder("lab/x")
        weights = (folder / "model.safetensors").read_bytes()
        assert weights == (pair / "av" / "model.safetensors").read_bytes()
        assert len(hub.asked("^/cdn/", "GET")) == 1

    def test_a_tree_of_several_pages(self, hub: FakeHub, pair: Path) -> None:
        hub.page_size = 2
        hub.add("lab/pair", files_in(pair))
        assert set(files_in(local_folder("lab/pair/av"))) == set(files_in(pair / "av"))

    def test_revisions(self, hub: FakeHub) -> None:
        first = hub.add("lab/x", {"config.json": b"1", "model.safetensors": b"old"})
        hub.add("lab/x", {"config.json": b"2", "model.safetensors": b"new"})
        hub.add("lab/x", {"config.json": b"3", "model.safetensors": b"pr"}, revision="refs/pr/1")
        for revision, weights in (
            ("", "new"),
            ("@main", "new"),
            (f"@{first}", "old"),
            ("@refs%2Fpr%2F1", "pr"),
        ):
            folder = local_folder(f"lab/x{revision}")
            assert (folder / "model.safetensors").read_text() == weights

    def test_sidecars_above_come_along(self, hub: FakeHub) -> None:
        hub.add(
            "lab/x",
            {
                "nla_meta.yaml": b"kind: nla_dataset",
                "rl/p0.0/config.json": b"{}",
                "rl/p0.0/model.safetensors": b"x",
                "rl/p0.1/model.safetensors": b"x",
            },
        )
        folder = local_folder("lab/x/rl/p0.0")
        assert (folder.parents[1] / "nla_meta.yaml").is_file()
        assert not (folder.parent / "p0.1").exists()

    def test_bases_in_the_same_repository_come_along(self, hub: FakeHub) -> None:
        """An adapter on an adapter on a base, each named by a path of somebody else's machine."""

        def adapter(base: str) -> bytes:
            return json.dumps({"base_model_name_or_path": base}).encode()

        hub.add(
            "lab/x",
            {
                "base/config.json": b"{}",
                "base/model.safetensors": b"x",
                "sft/adapter_config.json": adapter("/home/author/runs/base"),
                "sft/adapter_model.safetensors": b"x",
                "rl/p0.0/adapter_config.json": adapter("/home/author/runs/sft"),
                "rl/p0.0/adapter_model.safetensors": b"x",
                "other/config.json": b"{}",
                "other/model.safetensors": b"x",
            },
        )
        folder = local_folder("lab/x/rl/p0.0")
        root = folder.parents[1]
        assert set(files_in(root)) == {
            "base/config.json",
            "base/model.safetensors",
            "sft/adapter_config.json",
            "sft/adapter_model.safetensors",
            "rl/p0.0/adapter_config.json",
            "rl/p0.0/adapter_model.safetensors",
        }

    def test_published_adapter_of_a_sweep(self, hub: FakeHub) -> None:
        golden = GOLDEN / "nano_qwen3"
        hub.add("lab/nano", files_in(golden))
        there = load(av="lab/nano/rl-lora/p0.006", placement=FLOAT32).verbalizer
        here = load(av=golden / "rl-lora" / "p0.006", placement=FLOAT32).verbalizer
        assert there is not None
        assert here is not None
        vectors = np.ones((1, there.d_model), dtype=np.float32)
        np.testing.assert_array_equal(there.first_logits(vectors), here.first_logits(vectors))

    def test_an_adapter_whose_base_is_another_repository(
        self, hub: FakeHub, capsys: pytest.CaptureFixture[str]
    ) -> None:
        golden = GOLDEN / "nano_lora"
        files = files_in(golden / "av_sft_lora")
        config = json.loads(files["adapter_config.json"])
        config["base_model_name_or_path"] = "lab/base"
        hub.add("lab/lora", {**files, "adapter_config.json": json.dumps(config).encode()})
        base = files_in(golden / "base")
        hub.add("lab/base", base, access="gated")
        with pytest.raises(UserError, match=r"^lab/base: .*access is restricted"):
            load(av="lab/lora", placement=FLOAT32)
        hub.repositories["model", "lab/base"].access = "public"
        there = load(av="lab/lora", placement=FLOAT32).verbalizer
        here = load(av=golden / "av_sft_lora", placement=FLOAT32).verbalizer
        assert there is not None
        assert here is not None
        vectors = np.ones((1, there.d_model), dtype=np.float32)
        np.testing.assert_array_equal(there.first_logits(vectors), here.first_logits(vectors))
        assert cli.run(["inspect", "lab/lora"]) == 0
        assert "lab/base" in capsys.readouterr().out

    def test_explain_from_the_command_line(self, hub: FakeHub, pair: Path, tmp_path: Path) -> None:
        halves = {name: data for name, data in files_in(pair).items() if name[:2] in ("av", "ar")}
        for revision in ("main", "v1"):
            hub.add("lab/pair", halves, revision=revision)
            hub.add("lab/x-av", files_in(pair / "av"), revision=revision)
            hub.add("lab/x-ar", files_in(pair / "ar"), revision=revision)
        vectors = np.random.default_rng(0).normal(size=(3, tiny.D_MODEL)).astype(np.float32)
        pl.DataFrame({"activation_vector": vectors}).write_parquet(tmp_path / "a.parquet")
        tables = []
        names = ("lab/pair", "lab/pair@v1", "lab/pair/av", "lab/x-av", "lab/x-av@v1")
        for number, name in enumerate((str(pair), *names)):
            out = tmp_path / f"{number}.parquet"
            options = ["--max-new-tokens", "4", "--model", "m", "--ruler", "r", "--out", str(out)]
            assert cli.run(["explain", name, str(tmp_path / "a.parquet"), *options]) == 0
            tables.append(pl.read_parquet(out))
        assert all(table.equals(tables[0]) for table in tables)

    def test_login_opens_a_private_repository(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"config.json": b"{}", "model.safetensors": b"x"}
        hub.add("lab/secret", files, access="private")
        hub.add("lab/gated", files, access="gated")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert (local_folder("lab/secret") / "model.safetensors").is_file()
        assert (local_folder("lab/gated") / "model.safetensors").is_file()
        # The token is the Hub's, and nobody else's.
        assert {request.token for request in hub.asked("^/cdn/")} == {None}


class TestBrokenConnection:
    @pytest.fixture
    def weights(self, hub: FakeHub) -> bytes:
        data = np.random.default_rng(0).bytes(100_000)
        hub.add("lab/x", {"config.json": b"{}", "model.safetensors": data})
        return data

    def test_goes_on_where_it_broke_off(
        self, hub: FakeHub, weights: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Half of a chunk is not kept, and a chunk is 10 MB otherwise.
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
        hub.breaks["model.safetensors"] = 2
        assert (local_folder("lab/x") / "model.safetensors").read_bytes() == weights
        asked = [request.range for request in hub.asked("^/cdn/", "GET")]
        assert asked == [None, "bytes=50000-", "bytes=75000-"]

    def test_one_line_where_it_never_comes_back(self, hub: FakeHub, weights: bytes) -> None:
        hub.breaks["model.safetensors"] = 1000
        with pytest.raises(UserError, match="the connection broke off: run the same") as caught:
            local_folder("lab/x")
        assert "\n" not in str(caught.value)
        hub.breaks.clear()
        hub.requests.clear()
        assert (local_folder("lab/x") / "model.safetensors").read_bytes() == weights
        # What had arrived whole is not fetched again.
        assert not hub.asked(r"/resolve-cache/.*config\.json", "GET")

    @pytest.mark.parametrize("how", ["refused", "failing", "offline"])
    def test_without_a_connection_the_cache_serves(
        self, how: str, hub: FakeHub, weights: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local_folder("lab/x")
        if how == "refused":
            monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        elif how == "failing":
            hub.failures[""] = (503, "")
        else:
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert (local_folder("lab/x") / "model.safetensors").read_bytes() == weights
        with pytest.raises(UserError) as caught:
            local_folder("lab/y")
        message = "answered with an error (503)" if how == "failing" else "cannot be reached"
        assert message in str(caught.value)


class TestWhatIsNotThere:
    @pytest.fixture(autouse=True)
    def repositories(self, hub: FakeHub) -> None:
        files = {"av/config.json": b"{}", "av/model.safetensors": b"x", "README.md": b""}
        hub.add("lab/x", files)
        hub.add("lab/secret", files, access="private")
        hub.add("lab/gated", files, access="gated")
        hub.add("lab/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
        hub.add("lab/empty", {"README.md": b""})

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("lab/absent", "lab/absent: no folder here; on the Hub: no such model, or it is priv"),
            ("hf://lab/absent", "hf://lab/absent: no such model, or it is private"),
            ("lab/secret/av", "no such model, or it is private: check the name"),
            ("lab/gated/av", "access is restricted: ask for it on its page"),
            ("lab/x@v9/av", "no such revision"),
            ("lab/x/ar", 'no folder "ar" in the repository: it holds av'),
            ("lab/empty/ar", 'no folder "ar" in the repository: it has no folders'),
            ("lab/pickled", "a pickle that can run code"),
            ("./lab/x", "no such folder"),
            ("lab/-x-", "not a valid model name"),
        ],
    )
    def test_one_line(self, reference: str, message: str, hub: FakeHub) -> None:
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            local_folder(reference)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(reference)
        assert not hub.asked("^/cdn/")

    @pytest.mark.parametrize(
        "name",
        ["../evil.json", "av/../../evil.json", "/etc/evil.json", "a\\..\\b.json", "C:/x.json"],
    )
    def test_a_list_of_files_that_leaves_the_repository(
        self, name: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = ["av/config.json", "av/model.safetensors", name]
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: files)
        with pytest.raises(UserError, match=r"^lab/x[^\n]*is not inside it[^\n]*$"):
            local_folder("lab/x/av")
        assert not hub.asked("^/cdn/")

    def test_a_server_that_is_no_hub(self, hub: FakeHub) -> None:
        hub.is_no_hub = True
        with pytest.raises(UserError, match="does not answer as the Hub does: check HF_ENDPOINT"):
            local_folder("lab/x")

    @pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://127.0.0.1:9"])
    def test_an_endpoint_that_is_none(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(UserError, match="cannot be reached and the files are not in the"):
            local_folder("lab/x")

    def test_from_the_command_line(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        texts = tmp_path / "t.txt"
        texts.write_text("text")
        out = str(tmp_path / "a.parquet")
        command = ["extract", "lab/gated/av", str(texts), "--layer", "1", "--out", out]
        assert cli.run(command) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: lab/gated/av: ")
        assert error.count("\n") == 1
