"""The settings of a machine: one list, which the workflow, its documentation and the configuration agree with."""

import re
from pathlib import Path

import pytest
import yaml

from herdbook import settings
from herdbook.settings import CACHE, DEVICE, RECIPE, SETTINGS

ROOT = Path(__file__).parents[2]
# Read where they are used alone, and never passed on by the workflow: a secret, and an instance of Sigstore.
NOT_PASSED_ON = {"HERDBOOK_SIGNING_PASSWORD", "HERDBOOK_SIGSTORE_CONFIG"}
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
    assert RECIPE.configured(config) == RECIPE.default
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


def test_the_memory_of_a_gpu_is_said_in_gigabytes(monkeypatch):
    monkeypatch.delenv("HERDBOOK_GPU_MEMORY", raising=False)
    assert settings.gpu_bytes() is None
    monkeypatch.setenv("HERDBOOK_GPU_MEMORY", "1.5")
    assert settings.gpu_bytes() == 1_500_000_000
