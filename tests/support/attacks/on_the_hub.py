"""What happens to sources and releases on the Hub, and servers that fail or lie.

A row of ``CASES``: what is done; how; to which level the release is verified; the exit status; what says so.
"""

from pytest_local_hub import Blob

from support.attacks.stage import REPO, weights_in


def altered(blob):
    content = bytearray(blob.content)
    content[-1] ^= 1
    return Blob(bytes(content), lfs=True)


def source_altered(stage):
    for sha256 in weights_in(stage, "herd/base").values():
        stage.hub.lfs[sha256] = altered(stage.hub.lfs[sha256])


def release_altered(stage):
    base = {digest for name in ("herd/base", "herd/tuned") for digest in weights_in(stage, name).values()}
    for sha256 in weights_in(stage, REPO).values():
        if sha256 not in base:
            stage.hub.lfs[sha256] = altered(stage.hub.lfs[sha256])


def squashed(stage):
    stage.hub.commit("herd/base", {"config.json": b"{}"})
    stage.hub.repos["herd/base"].squash()


def only_proposed(stage):
    """Let nothing but a pull request lead to the commit that the release is made from."""
    repo = stage.hub.repos["herd/base"]
    repo.pull_requests["1"] = repo.branches["main"]
    squashed(stage)


def merged_long_ago(stage):
    stage.hub.page_size = 2
    for number in range(5):
        stage.hub.commit("herd/base", {"notes.md": str(number).encode()})


def moved_on(stage):
    stage.hub.commit("herd/base", {"config.json": b"{}"})


def renamed(stage):
    repo = stage.hub.repos.pop("herd/base")
    repo.name = "herd/base-2"
    stage.hub.repos["herd/base-2"] = repo
    stage.hub.moved["herd/base"] = "herd/base-2"


def deleted(stage):
    del stage.hub.repos["herd/base"]


def adapter_deleted(stage):
    del stage.hub.repos["herd/adapter"]


def adapter_squashed(stage):
    stage.hub.commit("herd/adapter", {"adapter_config.json": b"{}"})
    stage.hub.repos["herd/adapter"].squash()


def adapter_altered(stage):
    """The commit stays, and the Hub's description of it is another one."""
    repo = stage.hub.repos["herd/adapter"]
    files = repo.commits[repo.branches["main"]].files
    files["adapter_model.safetensors"] = altered(files["adapter_model.safetensors"])


def gated(stage):
    stage.hub.repos["herd/base"].gated = "manual"


def lying_sizes(stage):
    digest = next(iter(weights_in(stage, REPO).values()))
    content = stage.hub.lfs[digest].content
    stage.hub.lfs[digest] = Blob(content + b"more", lfs=True)


def nothing(stage):
    pass


def fault(kind, times=1000, **more):
    def attack(stage):
        stage.hub.fault("GET", r"/lfs/|/resolve/", kind, times, **more)

    return attack


def endless(stage):
    stage.set_time_limit(0.5)  # here alone: a slow machine is not to look like an attack
    fault("endless")(stage)


def source_fault(kind, **more):
    """Of the source, only what comes of its weights is wrong, or does not come."""

    def attack(stage):
        weights = "|".join(weights_in(stage, "herd/base").values())
        stage.hub.fault("GET", f"/lfs/({weights})", kind, 1000, **more)

    return attack


def source_wrong_then_silent(stage):
    """One request gets a wrong answer; all others, and its own further tries, get none."""
    weights = "|".join(weights_in(stage, "herd/base").values())
    stage.hub.fault("GET", f"/lfs/({weights})", "short", 1)
    source_fault("drop")(stage)


OTHER_RANGE = {"Content-Range": "bytes 8-15/16"}
WRONG = ("equality", "equal", "")
CASES = [
    ("nothing", nothing, "equality", 0, None),
    ("a source with a newer commit", moved_on, "equality", 0, None),
    ("a source with many newer commits", merged_long_ago, "upstream", 0, None),
    (
        "a source whose commit is in a pull request that nobody merged",
        only_proposed,
        "upstream",
        8,
        ("upstream", "history", "base"),
    ),
    ("a source that was renamed", renamed, "equality", 0, None),
    ("a source whose history was squashed", squashed, "upstream", 8, ("upstream", "pinned", "base")),
    ("a source that was deleted", deleted, "upstream", 9, ("upstream", "pinned", "base")),
    (
        "an adapter that was deleted",
        adapter_deleted,
        "upstream",
        9,
        ("upstream", "pinned", "adapter of folded"),
    ),
    (
        "an adapter whose history was squashed",
        adapter_squashed,
        "upstream",
        8,
        ("upstream", "pinned", "adapter of folded"),
    ),
    (
        "an adapter with other weights",
        adapter_altered,
        "upstream",
        8,
        ("upstream", "pinned", "adapter of folded"),
    ),
    ("a source that has become gated", gated, "equality", 9, ("equality", "equal", "")),
    (
        "a source that serves other bytes than it describes",
        source_altered,
        "equality",
        8,
        ("equality", "equal", ""),
    ),
    ("a source that changes a byte of each answer", source_fault("corrupt"), "equality", 8, WRONG),
    ("a source that sends less than was asked for", source_fault("short"), "equality", 8, WRONG),
    ("a source that sends more than was asked for", source_fault("long"), "equality", 8, WRONG),
    ("a source that sends another range", source_fault("header", headers=OTHER_RANGE), "equality", 8, WRONG),
    ("a source whose answers are no HTTP", source_fault("garbage"), "equality", 8, WRONG),
    ("a source that answers wrongly once, then no more", source_wrong_then_silent, "equality", 8, WRONG),
    ("a source that cuts every answer", source_fault("cut"), "equality", 9, WRONG),
    ("a source that does not answer", source_fault("drop"), "equality", 9, WRONG),
    (
        "a release that serves other bytes than it describes",
        release_altered,
        "equality",
        8,
        ("equality", "equal", ""),
    ),
    ("a server that reports false sizes", lying_sizes, "files", 8, ("files", "records", "model-")),
    ("a server that corrupts what it sends", fault("corrupt"), "claims", 8, ("files", "release", "")),
    ("a server that cuts every response", fault("cut"), "claims", 9, ("files", "release", "")),
    ("a server whose responses never end", endless, "claims", 9, ("files", "release", "")),
    ("a server that is overloaded", fault(503), "claims", 9, ("files", "release", "")),
]
