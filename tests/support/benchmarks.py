"""Small data sets in the forms of well-known benchmarks, written for these tests, on a local Hub."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

SUBJECTS = ("anatomy", "virology")
GATED = "Idavidrein/gpqa"


def parquet(rows, schema=None):
    """Return rows as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
    return file.getvalue()


def card(configs, **more):
    """Return a data set's card; JSON is YAML, too.

    Args:
        configs: By configuration and split, the pattern of its files.
        more: Further entries.
    """
    entries = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": path} for split, path in splits.items()],
        }
        for name, splits in configs.items()
    ]
    return b"---\n" + json.dumps({"configs": entries, **more}).encode() + b"\n---\n# Data\n"


def arc(hub):
    def rows(start, count):
        return [
            {
                "id": f"A_{number}",
                "question": f"w{number} w{number + 1} ?",
                "choices": {
                    "text": [f"w{number + 2}", f"w{number} w3", "w5", "w6 w7"],
                    "label": list("ABCD"),
                },
                "answerKey": "ABCD"[number % 4],
            }
            for number in range(start, start + count)
        ]

    files = {
        f"{name}/{split}-00000-of-00001.parquet": parquet(rows(start, count))
        for name in ("ARC-Challenge", "ARC-Easy")
        for split, start, count in (("train", 0, 30), ("validation", 30, 3), ("test", 33, 6))
    }
    configs = {
        name: {split: f"{name}/{split}-*" for split in ("train", "validation", "test")}
        for name in ("ARC-Challenge", "ARC-Easy")
    }
    return hub.add_repo("allenai/ai2_arc", {**files, "README.md": card(configs)}, repo_type="dataset")


def hellaswag(hub):
    def rows(start, count):
        return [
            {
                "ind": number,
                "activity_label": f"w{number}",
                "ctx_a": f"w{number} w1.",
                "ctx_b": "w2",
                "ctx": f"w{number} w1. w2",
                "endings": [f"w{number + shift} w3 [title] w{shift}" for shift in range(4)],
                "source_id": str(number),
                "split": "s",
                "split_type": "indomain",
                "label": str(number % 4),
            }
            for number in range(start, start + count)
        ]

    files = {
        f"data/{split}-00000-of-00001.parquet": parquet(rows(start, count))
        for split, start, count in (("train", 0, 14), ("validation", 14, 5))
    }
    said = card({"default": {split: f"data/{split}-*" for split in ("train", "validation")}})
    return hub.add_repo("Rowan/hellaswag", {**files, "README.md": said}, repo_type="dataset")


def gsm8k(hub):
    def rows(start, count):
        return [
            {"question": f"w{number} w{number + 2} ?", "answer": f"w{number} <<1+1=2>>\n#### {number}"}
            for number in range(start, start + count)
        ]

    files = {
        f"{name}/{split}-00000-of-00001.parquet": parquet(rows(start, count))
        for name in ("main", "socratic")
        for split, start, count in (("train", 0, 8), ("test", 8, 3))
    }
    configs = {
        name: {split: f"{name}/{split}-*" for split in ("train", "test")} for name in ("main", "socratic")
    }
    return hub.add_repo("openai/gsm8k", {**files, "README.md": card(configs)}, repo_type="dataset")


def ifeval(hub):
    """Its one file is lines of JSON at the top, without a card that says so."""
    rows = [
        {
            "key": 1,
            "prompt": "w1 w2. No commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        },
        {
            "key": 2,
            "prompt": "w3 in lower case, at least 2 words.",
            "instruction_id_list": ["change_case:english_lowercase", "length_constraints:number_words"],
            "kwargs": [{}, {"relation": "at least", "num_words": 2}],
        },
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files = {"ifeval_input_data.jsonl": lines.encode(), "README.md": b"# Data\n"}
    return hub.add_repo("wis-k/instruction-following-eval", files, repo_type="dataset")


def mmlu(hub):
    def rows(start, count):
        return [
            {
                "question": f"w{number} w4 ?",
                "subject": "s",
                "choices": [f"w{number}", "w2", "w3", "w4"],
                "answer": number % 4,
            }
            for number in range(start, start + count)
        ]

    files = {
        f"{name}/{split}-00000-of-00001.parquet": parquet(rows(start, count))
        for name in SUBJECTS
        for split, start, count in (
            ("dev", 0, 5),
            ("validation", 5, 2),
            ("test", 7, 4 if name == "anatomy" else 3),
        )
    }
    configs = {
        name: {split: f"{name}/{split}-*" for split in ("test", "validation", "dev")} for name in SUBJECTS
    }
    return hub.add_repo("cais/mmlu", {**files, "README.md": card(configs)}, repo_type="dataset")


def math(hub):
    """Only problems of level 5 are measured."""
    rows = [
        {
            "problem": f"w{number} w{number + 1} ?",
            "level": f"Level {3 + number % 3}",
            "type": "Algebra",
            "solution": f"w{number} $\\boxed{{{number}}}$",
        }
        for number in range(9)
    ]
    files = {f"algebra/{split}-00000-of-00001.parquet": parquet(rows) for split in ("train", "test")}
    configs = {"algebra": {split: f"algebra/{split}-*" for split in ("train", "test")}}
    return hub.add_repo(
        "DigitalLearningGmbH/MATH-lighteval", {**files, "README.md": card(configs)}, repo_type="dataset"
    )


def eq_bench(hub):
    """As a script and its conversion to Parquet, as older data sets are."""
    emotions = ("joy", "fear", "anger", "pride")
    reference = {f"emotion{place}": name for place, name in enumerate(emotions, start=1)}
    reference |= {f"emotion{place}_score": str(place) for place in range(1, 5)}
    rows = [
        {
            "prompt": f"w{number} feels:",
            "reference_answer": str(reference),
            "reference_answer_fullscale": str(reference),
        }
        for number in range(3)
    ]
    return hub.add_repo(
        "pbevan11/EQ-Bench", {"data/validation-00000-of-00001.parquet": parquet(rows)}, repo_type="dataset"
    )


def scripted(hub, rows, repo="herd/scripted"):
    """A data set that is a script, which the Hub converted to Parquet."""
    hub.add_repo(repo, {f"{repo.partition('/')[2]}.py": b"raise SystemExit\n"}, repo_type="dataset")
    return hub.convert(f"datasets/{repo}", {"plain/test/0000.parquet": parquet(rows)})


def add_all(hub):
    """Add all stand-ins to a Hub; return their commits by repository."""
    return {
        "allenai/ai2_arc": arc(hub),
        "Rowan/hellaswag": hellaswag(hub),
        "openai/gsm8k": gsm8k(hub),
        "wis-k/instruction-following-eval": ifeval(hub),
        "cais/mmlu": mmlu(hub),
        "pbevan11/EQ-Bench": eq_bench(hub),
        "DigitalLearningGmbH/MATH-lighteval": math(hub),
    }
