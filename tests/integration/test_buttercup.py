"""config/buttercup.yaml: its plan at full size from headers alone, and the whole of it with small weights."""

import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter

import pytest
import torch
import yaml
from pytest_local_hub import LocalHub, OnDisk, client
from safetensors.torch import load_file

from herdbook import needs
from herdbook import plan as plans
from herdbook.errors import StepError
from herdbook.tools.converter import CONVERTER
from support import buttercup, forkserver
from support.project import REPOSITORY, Project

NAME = "Buttercup-4x7B-V2-laser"
REPO = f"Kquant03/{NAME}"
TEXTS = [
    REPOSITORY / f"config/miniature/text/{kind}/validation.jsonl" for kind in ("prose", "general", "python")
]

# Mistral-7B, counted by hand.
HIDDEN, INNER, KV, VOCABULARY, LAYERS = 4096, 14336, 1024, 32000, 32
MLP = 3 * HIDDEN * INNER
LAYER = 2 * HIDDEN * HIDDEN + 2 * KV * HIDDEN + MLP + 2 * HIDDEN
DENSE = 2 * VOCABULARY * HIDDEN + LAYERS * LAYER + HIDDEN
MIXTURE = DENSE + 3 * LAYERS * MLP + LAYERS * 4 * HIDDEN


def herdbook(environment, folder, *arguments):
    return subprocess.run(
        [forkserver.PROGRAMS / "herdbook", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def files_of(folder):
    return {path.name: path for path in folder.iterdir()}


def on_disk(folder, repo):
    """The same for files of holes, whose digests nobody looks at: made up, since computing them would read 43 GB."""
    return {
        name: OnDisk(path, hashlib.sha256(f"{repo}/{name}".encode()).hexdigest())
        if name.endswith(".safetensors")
        else path
        for name, path in files_of(folder).items()
    }


# --- at full size -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The recipe, locked against repositories of full size; the sources' folders; and what locking asked the Hub for."""
    root = tmp_path_factory.mktemp("full")
    recipe = buttercup.copy_recipe(root)
    with LocalHub() as hub:
        folders = []
        for place, repo in enumerate(buttercup.SOURCES):
            folders.append(root / f"source{place}")
            buttercup.write_full(folders[-1], repo)
            hub.add_repo(repo, on_disk(folders[-1], repo), license="apache-2.0")
        environment = client.environment(hub, root / "home")
        done = herdbook(environment, root, "lock", "--recipe", recipe)
        assert done.returncode == 0, done.stderr
        return recipe, folders, hub.requests


def test_sizes_are_those_of_mistral_7b(full):
    """Of the files that Mistral-7B's own repository has in this layout."""
    sizes = [path.stat().st_size for path in sorted(full[1][0].glob("*.safetensors"))]
    assert sizes == [4943162336, 4999819336, 4540516344]


def test_locking_reads_no_weights(full):
    _, folders, requests = full
    count = sum(len(list(folder.glob("*.safetensors"))) for folder in folders)
    read = [request for request in requests if request.status == 206]
    assert len(read) == count == 8
    assert all(request.bytes_sent <= 1 << 17 for request in read)
    # the headers, with what comes along in one request each, three indexes of 23 kB, small files, and tokenizers
    tokenizers = sum(path.stat().st_size for folder in folders for path in folder.glob("tokenizer.*"))
    assert sum(request.bytes_sent for request in requests) < count * (1 << 17) + 100_000 + tokenizers


def test_the_plan_at_full_size(full):
    recipe, folders, _ = full
    plan = plans.load(recipe)
    assert plan.released.parameters == MIXTURE == 24_153_690_112
    assert {node.parameters for node in plan.nodes.values()} == {DENSE, MIXTURE}
    # everything is measured, so all of each source is fetched: its files but the card and the index
    wanted = [
        path for folder in folders for name, path in files_of(folder).items()
        if name not in {"README.md", buttercup.INDEX}
    ]  # fmt: skip
    assert needs.fetch_bytes(plan) == sum(path.stat().st_size for path in wanted)
    assert 3 * 2 * DENSE < needs.fetch_bytes(plan) < 3 * 2 * DENSE + 200_000

    # three lasered models, the mixture, and the vectors of twelve layers' down projections; no GGUF of full width
    exact = 3 * 2 * DENSE + 2 * MIXTURE + 3 * 12 * 8 * HIDDEN**2
    quantized = (needs.write_bytes(plan) - exact) * 8 / MIXTURE
    # bits a weight of Q8_0 (34 bytes for 32) and Q6_K (210 for 256), and of Q5_K and Q4_K with none to all in Q6_K
    least = 34 / 4 + 210 / 32 + 176 / 32 + 144 / 32
    assert least < quantized < 34 / 4 + 3 * 210 / 32


def test_the_jobs_at_full_size(full):
    plan = plans.load(full[0])
    parts = {name: len(node.parts) for name, node in plan.nodes.items()}
    # 2 GB hold four layers (436 MB), or three and the embeddings (262 MB)
    lasered = dict.fromkeys(("westlake-laser", "samantha-laser", "triunvirato-laser"), 1 + 7 + 1)
    # the base without MLPs in two, each expert's MLPs (352 MB a layer) five layers at a time, and the routers
    assert parts == {
        "westlake": 3, "samantha": 3, "triunvirato": 2, **lasered, "buttercup": 2 + 4 * 7 + 1,
    }  # fmt: skip
    assert len(plan.searches) == 3
    assert {len(search.matrices) for search in plan.searches.values()} == {12}
    assert [item.name for item in plan.evaluations] == [
        "westlake", "samantha", "triunvirato", *lasered, "buttercup",
        "buttercup.Q8_0", "buttercup.Q6_K", "buttercup.Q5_K_M", "buttercup.Q4_K_M",
    ]  # fmt: skip
    assert all(part.size_bytes <= 2 * 10**9 for name in lasered for part in plan.nodes[name].parts)


def test_memory_at_full_size(full):
    """No shard needs more than a laptop has; the measurements hold the models in float32, and say so."""
    plan = plans.load(full[0])
    assert max(needs.memory_bytes(plan, part) for part in plan.parts.values()) < 4e9
    need = {item.name: needs.memory_bytes(plan, item) for item in plan.evaluations}
    # while transformers joins a layer's experts they are there as they came, and gates and ups (two thirds) twice more
    stacked = 4 * 4 * MLP * 4 // 3
    for name, weights in {
        "westlake": 4 * DENSE,
        "buttercup": 4 * MIXTURE + stacked,
        "buttercup.Q4_K_M": 8 * MIXTURE + stacked,
    }.items():
        assert weights < need[name] < weights + 2e9


def test_what_experts_alone_would_need(full):
    """Neither measured nor searched, an expert gives its MLPs alone, and only these would be fetched."""
    recipe = full[0]
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    content["evaluate"] |= {"models": ["buttercup"], "compare": {}}
    for name in ("westlake-laser", "samantha-laser", "triunvirato-laser"):
        content["models"][name] = {
            "laser": name.removesuffix("-laser"),
            "rank": {"fraction": 0.75},
            "matrices": ["mlp.down_proj"],
            "layers": "20-31",
        }
    less = recipe.with_name("less.yaml")
    less.write_text(yaml.safe_dump(content), encoding="utf-8")
    shutil.copy(recipe.with_suffix(".lock.json"), less.with_suffix(".lock.json"))
    plan = plans.load(less)
    needed = 2 * DENSE + 2 * 2 * LAYERS * MLP
    assert round(needed / 1e9, 2) == 37.03
    assert needed < needs.fetch_bytes(plan) < needed + 200_000


def test_what_people_see(full):
    """On a machine whose disk is too small, the same plan ends with an error."""
    done = herdbook(None, full[0].parent.parent, "plan", "--recipe", full[0])
    assert "to fetch: 43.45 GB" in done.stdout
    assert re.search(r"^  buttercup +24,153,\d{3},\d{3} +48\.31 GB$", done.stdout, re.MULTILINE)
    if done.returncode:
        assert done.returncode == 2
        assert "disk" in done.stderr or "free" in done.stderr


# --- the whole of it, small -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The recipe with less text and fewer matrices to search, built whole by Snakemake from a local Hub with small weights: project, Hub, environment."""
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("small")
    documents = [line for path in TEXTS for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [json.loads(document)["text"] for document in documents]
    buttercup.write_tokenizer(root / "tokenizer", [line for text in texts for line in text.splitlines()])
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        for place, repo in enumerate(buttercup.SOURCES):
            folder = root / f"source{place}"
            buttercup.write_small(folder, repo, root / "tokenizer")
            hub.add_repo(repo, files_of(folder), license="apache-2.0")
        hub.orgs.add(REPO.partition("/")[0])
        project = Project(root / "project")
        project.recipe = buttercup.copy_recipe(project.root, documents=2)  # of 400 characters
        (project.root / "config/config.yaml").write_text("recipe: config/buttercup.yaml\n", encoding="utf-8")
        for name, value in client.environment(hub, root / "home", hub.token).items():
            patch.setenv(name, value)
        done = herdbook(project.environment(), project.root, "lock", "--recipe", project.recipe)
        assert done.returncode == 0, done.stderr
        project.run()
        yield project, hub, root


@pytest.mark.slow
def test_the_recipe_is_built_whole(built):
    project, _, _ = built
    assert project.run() == set()
    release = project.results / NAME / "release"
    methods = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
    assert {path.name for path in release.glob("*.gguf")} == {f"{NAME}.{method}.gguf" for method in methods}
    card = (release / "README.md").read_text(encoding="utf-8")
    assert "Little Buttercup" in card
    assert "- Rank 3 in the world for roleplay. *Asserted* by Kquant03 (<" in card
    assert all(f"`buttercup.{method}`" in card for method in methods)


@pytest.mark.slow
def test_experts_are_what_the_recipe_says(built):
    """By a loop over every tensor: each of the sources, or, of a lasered matrix, of the rank that the search chose."""
    project, _, root = built
    release = project.results / NAME / "release"
    merged = {}
    for path in release.glob("*.safetensors"):
        merged |= load_file(path)
    sources = []
    for place in range(3):
        sources.append({})
        for path in (root / f"source{place}").glob("*.safetensors"):
            sources[-1] |= load_file(path)
    chosen = {}
    for path in (release / "provenance/searches").glob("*.json"):
        chosen[path.name.partition("-laser")[0]] = json.loads(path.read_text())["chosen"]
    assert any(chosen.values())
    names = ("westlake", "samantha", "westlake", "triunvirato")
    for layer in range(32):
        for place, name in enumerate(names):
            source = sources[("westlake", "samantha", "triunvirato").index(name)]
            for short, matrix in {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.items():
                upstream = f"model.layers.{layer}.mlp.{matrix}.weight"
                found = merged[f"model.layers.{layer}.block_sparse_moe.experts.{place}.{short}.weight"]
                rule = chosen[name].get(upstream)
                if rule is None:
                    assert found.equal(source[upstream]), (place, upstream)
                    continue
                left = torch.linalg.svdvals(found.double() - source[upstream].double())
                values = torch.linalg.svdvals(source[upstream].double())
                rank = int(rule["fraction"] * 256)
                # the best approximation leaves the smallest singular values; bfloat16 adds 2^-9 of an entry at most
                assert left[0] < values[rank] + 2**-8 * values[0]
                assert left.norm() > 0.9 * values[rank:].norm()
    for name, tensor in sources[0].items():
        if ".mlp." not in name:
            assert merged[name].equal(tensor), name


@pytest.mark.slow
def test_it_loads_and_speaks(built):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    release = built[0].results / NAME / "release"
    tokenizer = AutoTokenizer.from_pretrained(release)
    model = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32)
    out = model.generate(**tokenizer("The captain", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert out.shape[1] > 4


@pytest.mark.slow
def test_it_is_published_once(built):
    project, hub, _ = built
    project.snakemake("publish")
    published = hub.repos[REPO].find("v2.0")
    release = project.results / NAME / "release"
    ours = {path.relative_to(release).as_posix(): path for path in release.rglob("*") if path.is_file()}
    assert {name for name, path in ours.items() if published.files[name].content != path.read_bytes()} <= {
        "claims.jsonl"
    }
    state = dict(hub.repos[REPO].branches)
    assert "Nothing to be done" in (done := project.snakemake("publish")).stdout + done.stderr
    assert hub.repos[REPO].branches == state


@pytest.mark.slow
def test_a_stranger_proves_all_of_what_is_published(built):
    """After ``test_it_is_published_once``: from the Hub alone, every byte and everything that was computed."""
    project, hub, root = built
    if REPO not in hub.repos:
        project.snakemake("publish")
    report = root / "verification.json"
    stranger = project.environment() | {"HF_HOME": str(root / "stranger")}
    done = herdbook(
        stranger, root, "verify", f"{REPO}@v2.0", "--level", "recomputed", "--sample", "all", "--json", report
    )
    assert done.returncode == 0, done.stdout + done.stderr
    levels = {level["name"]: level for level in json.loads(report.read_text(encoding="utf-8"))["levels"]}
    assert list(levels) == ["files", "claims", "upstream", "equality", "recomputed"]
    again = Counter(finding["check"] for finding in levels["recomputed"]["findings"])
    assert again["gguf"] == 4
    assert again["made"] > 1
    assert "32 of 32 routers" in {finding["subject"] for finding in levels["recomputed"]["findings"]}
