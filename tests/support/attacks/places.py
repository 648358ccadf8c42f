"""Paths that leave the folder, links, pipes, and files in the places that clones, downloads and desktops leave."""

import os

from herdbook.layout import CLAIMS, PUBLIC_KEY, RECIPE, SIGNATURE, SUMS
from support import copies


def climb(name):
    def attack(folder):
        with (folder / SUMS).open("a") as file:
            file.write(f"{'0' * 64}  {name}\n")

    return attack


def link_out(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc")


def pipe(folder):
    os.mkfifo(folder / "pipe.json")


def replaced_by(name, lead):
    """Put a link, or a pipe if it leads nowhere, in the place of a file."""

    def attack(folder):
        (folder / name).unlink()
        if lead:
            (folder / name).symlink_to(lead)
        else:
            os.mkfifo(folder / name)

    return attack


def beside(name, content=b"x", *, clone=True):
    """Put a file into a folder that is a clone, and was downloaded and copied on desktops besides."""

    def attack(folder):
        if clone:
            copies.leave(folder)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    return attack


def linked(name, target, *, clone=True):
    def attack(folder):
        if clone:
            copies.leave(folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)

    return attack


CASES = [
    ("a path that leaves the folder", climb("../../secret"), ("files", "release", ""), {}),
    ("an absolute path", climb("/etc/passwd"), ("files", "release", ""), {}),
    ("a file listed twice", climb("config.json"), ("files", "release", ""), {}),
    ("a link to a folder outside", link_out, ("files", "unlisted", "config.json"), {}),
    (
        "a link to a file beside it",
        replaced_by("config.json", RECIPE),
        ("files", "unlisted", "config.json"),
        {},
    ),
    ("a pipe that never ends", pipe, ("files", "unlisted", "pipe.json"), {}),
    *(
        (what, replaced_by(name, lead), ("files", "unlisted", name), {})
        for what, name, lead in (
            ("a signature that is a link to a private key", SIGNATURE, "../key"),
            ("a public key that is a device", PUBLIC_KEY, "/dev/zero"),
            ("claims that are a pipe", CLAIMS, None),
        )
    ),
    *(
        (what, attack, ("files", "unlisted", name), {})
        for what, name, attack in (
            ("a hook in a clone's `.git`", ".git/hooks/", beside(".git/hooks/post-checkout")),
            (
                "a hook of Git LFS with one more command",
                ".git/hooks/",
                beside(".git/hooks/post-checkout", copies.HOOK_OF_LFS + b"./run\n"),
            ),
            ("weights in a clone's `.git`", ".git/x.safetensors", beside(".git/x.safetensors")),
            (
                "a setting in a clone's `.git` that runs a program",
                ".git/config",
                beside(".git/config", b"[core]\n\tfsmonitor = ./run\n"),
            ),
            (
                "a filter in a clone's `.git` that is not Git LFS's",
                ".git/config",
                beside(".git/config", copies.CONFIG_OF_GIT.replace(b"git-lfs clean", b"./run")),
            ),
            ("a link in a clone's `.git`", ".git/refs/heads/x", linked(".git/refs/heads/x", "../../config")),
            ("a `.git` that is a link", ".git", linked(".git", "/etc", clone=False)),
            ("a `.git` that is a file", ".git", beside(".git", b"gitdir: /tmp/x", clone=False)),
            ("a `.git` that git did not make", ".git/index", beside(".git/index", clone=False)),
            ("a `.GIT`", ".GIT/HEAD", beside(".GIT/HEAD", clone=False)),
            (
                "code in the cache of a download",
                ".cache/huggingface/download/x.py",
                beside(".cache/huggingface/download/x.py"),
            ),
            (
                "weights under the name of metadata",
                ".cache/huggingface/download/x.metadata",
                beside(".cache/huggingface/download/x.metadata", bytes(70_000)),
            ),
            (
                "weights under the name of a branch in a clone's `.git`",
                ".git/refs/heads/x.safetensors",
                beside(".git/refs/heads/x.safetensors"),
            ),
            (
                "weights in the cache of a download",
                ".cache/huggingface/model.safetensors",
                beside(".cache/huggingface/model.safetensors"),
            ),
            ("another file named as one of macOS", "._x.safetensors", beside("._x.safetensors")),
            *(
                (f"a `{name}`", name, beside(name, clone=False))
                for name in (
                    "LICENSE.safetensors",
                    "LICENSE.gguf",
                    "LICENSE.bin",
                    "LICENSE.py",
                    "LICENSE.PY",
                    "NOTICE.safetensors",
                    ".gguf",
                    ".bin",
                    ".eval_results/x.py",
                    "figures/x.png.safetensors",
                )
            ),
        )
    ),
]
