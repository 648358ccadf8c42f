"""The settings of a machine: one list, which the workflow, its documentation and the configuration agree with."""

import re
from pathlib import Path

import pytest
import yaml

from herdbook import settings
from herdbook.settings import CACHE, DEVICE, RECIPE, SETTINGS

ROOT = Path(__file__).parents[2]
# Read where they are used alone, and never passed on by the workflow: a secret, and an instance of Sigstore.
NOT_PASSED_ON = {"HERDBOOK_FORKSERVER", "HERDBOOK_SIGNING_PASSWORD", "HERDBOOK_SIGSTORE_CONFIG"}
# As literals, in code: what a file says to people (`$HERDBOOK_...` in a docstring or message) is not counted.
LITERAL = re.compile(r'"(HERDBOOK_[A-Z_]+)"')


def table():
    """Return the rows of the table in workflow.md."""
    text = (ROOT / "workflow.md").read_text(encoding="utf-8")
    section = text.partition("\n## Settings of a machine\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_documented_settings_are_those_of_the_code():
    documented = [[cell.strip("` ") for cell in row[:3]] + row[3:] for row in table()]
    assert documented == [[one.variable, one.key, one.default, one.meaning] for one in SETTINGS]


def test_the_configuration_has_a_key_for_each_setting_that_people_make():
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    assert set(config) == {one.key for one in SETTINGS if one.key}
    assert RECIPE.configured(config) == "config/miniature.yaml"
    assert DEVICE.configured(config) == DEVICE.default


def test_each_variable_is_named_once_in_the_code():
    places = [*(ROOT / "src").rglob("*.py"), *(ROOT / "rules").glob("*.smk"), ROOT / "Snakefile"]
    named = [name for path in places for name in LITERAL.findall(path.read_text(encoding="utf-8"))]
    assert sorted(named) == sorted({one.variable for one in SETTINGS} | NOT_PASSED_ON)


@pytest.mark.parametrize(
    ("setting", "config", "before", "expected"),
    [
        (DEVICE, {"device": "cuda"}, "cpu", "cuda"),
        (DEVICE, {"device": None}, "cuda", "cpu"),  # what the configuration does not say is not left over
        (DEVICE, {}, "cuda", "cpu"),
        (CACHE, {"cache": "s3://herd"}, "/before", "s3://herd"),
        (CACHE, {"cache": None}, "/before", "/before"),
        (settings.PINS, {"pins": "/other"}, "/lock", ""),
    ],
)
def test_what_the_workflow_passes_on(monkeypatch, setting, config, before, expected):
    monkeypatch.setenv(setting.variable, before)
    assert setting.configured(config) == expected


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("80", 80 * 1000**3),
        ("1.5", 1_500_000_000),
        ("80GB", 80 * 1000**3),
        ("80 gb", 80 * 1000**3),
        ("80GiB", 80 * 1024**3),
        ("81559MiB", 81559 * 1024**2),  # as nvidia-smi prints it
        ("24000mb", 24 * 1000**3),
    ],
)
def test_the_memory_of_a_gpu_is_read_as_people_write_it(monkeypatch, text, size_bytes):
    monkeypatch.setenv("HERDBOOK_GPU_MEMORY", text)
    assert settings.GPU_MEMORY.parsed == size_bytes
    monkeypatch.delenv("HERDBOOK_GPU_MEMORY")
    assert settings.GPU_MEMORY.parsed is None


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_that_are_understood_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    assert settings.problems({"device": name}) == []
    assert str(torch.device(name)) == name


MEANINGLESS = [
    ({"devise": "cuda"}, "devise: unknown setting; did you mean 'device'?"),
    ({"device": "cudaa"}, "device: 'cudaa' is not cpu, cuda (any GPU) or a GPU such as cuda:0; did you mean 'cuda'?"),
    ({"device": "CPU"}, "device: 'CPU' is not cpu, cuda (any GPU) or a GPU such as cuda:0; did you mean 'cpu'?"),
    ({"device": "cuda:"}, "device: 'cuda:' is not"),
    ({"device": "cuda1"}, "device: 'cuda1' is not cpu, cuda (any GPU) or a GPU such as cuda:0; did you mean"),
    ({"device": 0}, "device: '0' is not"),
    ({"gpu_memory": "80 sheep"}, "gpu_memory: '80 sheep' is not a number of GB such as 80, or a size such as 80GB"),
    ({"gpu_memory": 0}, "gpu_memory: '0' is not"),
    ({"gpu_memory": -80}, "gpu_memory: '-80' is not"),
    ({"gpu_memory": float("inf")}, "gpu_memory: 'inf' is not"),
    ({"gpu_memory": [80]}, "gpu_memory: expected text or a number"),
    *(({"price_per_hour": text}, f"price_per_hour: '{text}' is not a price") for text in ("cheap", -1, "nan", 0)),
    ({"container": "my image.sif"}, "container: 'my image.sif' contains a space"),
    ({"account": "lab"}, "account: unknown setting"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "problem"), MEANINGLESS)
def test_settings_that_mean_nothing_are_named(config, problem):
    (found,) = settings.problems(config)
    assert found.startswith(problem)


@pytest.mark.parametrize("config", [config for config, _ in MEANINGLESS])
def test_an_editor_marks_them_too(config):
    (value,) = config.values()
    from jsonschema import Draft202012Validator  # takes two seconds, in each process that collects tests

    known = Draft202012Validator(settings.json_schema())
    # numbers without an end and zeros in text are not for JSON Schema
    assert known.is_valid(config) == (value == float("inf"))


@pytest.mark.parametrize(
    "config",
    [
        *({"gpu_memory": text} for text in ("80", 80, 1.5, "80 gb", " 80GiB ", "81559MiB", "", None)),
        *({"device": text} for text in ("cpu", "cuda", "cuda:12", "", None)),
        *({"price_per_hour": text} for text in (2, 0.5, "2.5", "1e-3", "1_000", None)),
        {"recipe": "a.yaml", "cache": "s3://herd", "signing_key": "keyless"},
    ],
)
def test_an_editor_accepts_what_is_understood(config):
    assert settings.problems(config) == []
    from jsonschema import Draft202012Validator

    Draft202012Validator(settings.json_schema()).validate(config)


def test_modules_of_a_workflow_agree_about_the_machine(monkeypatch):
    for one in SETTINGS:
        monkeypatch.setenv(one.variable, "")
    passed = {}
    settings.pass_on({"recipe": "a.yaml", "device": "cuda"}, "a/results", passed)
    settings.pass_on({"recipe": "b.yaml", "device": "cuda"}, "b/results", passed)
    assert (RECIPE.value, settings.RESULTS.value, DEVICE.value) == ("b.yaml", "b/results", "cuda")
    with pytest.raises(
        ValueError, match="^device: is 'cpu' in this module of the workflow and 'cuda' in another"
    ):
        settings.pass_on({"recipe": "c.yaml"}, "c/results", passed)
    settings.pass_on({"recipe": "c.yaml"}, "c/results", {})  # another workflow


def test_a_gpu_is_not_taken_for_the_cpu():
    assert settings.problems({"device": "gpu"}) == [
        "device: 'gpu' is not cpu, cuda (any GPU) or a GPU such as cuda:0"
    ]


def test_a_cluster_s_file_has_keys_of_its_own():
    site = {"acount": "lab", "partition": "cpu", "gpu": "h100", "gpu_partition": "g", "gpu_memory": "80GB"}
    assert settings.problems(site, settings.CLUSTER_KEYS) == [
        "acount: unknown setting; did you mean 'account'?"
    ]


def test_the_keys_of_a_cluster_are_those_that_its_profile_and_the_rules_read():
    profile = (ROOT / "profiles/slurm/profile.v9+.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"""about(?:\.get\(|\[)["'](\w+)|["'](\w+)["'] in about""", profile))
    rules = (ROOT / "rules/resources.smk").read_text(encoding="utf-8")
    read = {name for pair in used for name in pair if name} | set(re.findall(r'of_cluster\("(\w+)"\)', rules))
    assert read == set(settings.CLUSTER_KEYS)
    # and those that its guide lists, with the settings of the workflow
    guide = (ROOT / "profiles/README.md").read_text(encoding="utf-8")
    block = guide.partition("```yaml\n")[2].partition("```")[0]
    lines = set(yaml.safe_load(block))
    assert lines <= {*settings.CLUSTER_KEYS, *(one.key for one in SETTINGS)}
    assert lines | {"gpu_partition"} >= set(settings.CLUSTER_KEYS)


@pytest.mark.parametrize(
    ("outer", "config", "lost"),
    [
        ({"device": "cuda", "cache": "/c"}, {"recipe": "r"}, ["device", "cache"]),
        ({"device": "cuda"}, {"device": "cpu"}, []),  # the module's own
        ({"device": "cuda"}, {"device": ""}, []),
        ({"device": "", "cache": None}, {}, []),
        ({"recipe": "theirs", "samples": ["a"]}, {}, []),  # the workflow's own matters
        ({"gated": ["a/b"]}, {}, ["gated"]),
        ({"gpu": "a100", "device": "cuda"}, {"device": "cuda"}, ["gpu"]),
    ],
)
def test_what_a_workflow_sets_reaches_its_modules_or_is_named(outer, config, lost):
    assert settings.not_handed_on(outer, config, settings.CLUSTER_KEYS) == lost


def test_the_configuration_of_the_repository_is_understood():
    assert settings.problems(yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))) == []
