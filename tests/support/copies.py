"""What other programs leave in a copy of a release: git, Git LFS, `hf download`, macOS, Windows.

The settings are those of git 2.39.5 (`clone --filter=blob:none --no-tags`) and Git LFS 3.3.0 (`install --local`). The hooks
are that of 3.3.0 (pre-push) and that of later versions (post-checkout).
"""

CONFIG_OF_GIT = b"""[core]
\trepositoryformatversion = 0
\tfilemode = true
[remote "origin"]
\turl = https://hub.example/herd/Tiny
\ttagOpt = --no-tags
\tfetch = +refs/heads/*:refs/remotes/origin/*
\tpromisor = true
\tpartialclonefilter = blob:none
[branch "main"]
\tremote = origin
\tmerge = refs/heads/main
[lfs]
\trepositoryformatversion = 0
[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
"""
HOOK_OF_LFS = rb"""#!/bin/sh
command -v git-lfs >/dev/null 2>&1 || { printf >&2 "\n%s\n\n" "This repository is configured for Git LFS but 'git-lfs' was not found on your path. If you no longer wish to use Git LFS, remove this hook by deleting the 'post-checkout' file in the hooks directory (set by 'core.hookspath'; usually '.git/hooks')."; exit 2; }
git lfs post-checkout "$@"
"""
HOOK_OF_LFS_3_3 = rb"""#!/bin/sh
command -v git-lfs >/dev/null 2>&1 || { echo >&2 "\nThis repository is configured for Git LFS but 'git-lfs' was not found on your path. If you no longer wish to use Git LFS, remove this hook by deleting '.git/hooks/pre-push'.\n"; exit 2; }
git lfs pre-push "$@"
"""
LEFT = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    ".git/HEAD": b"ref: refs/heads/main\n",
    ".git/config": CONFIG_OF_GIT,
    ".git/index": b"DIRC",
    ".git/hooks/pre-commit.sample": b"#!/bin/sh\n",
    ".git/hooks/post-checkout": HOOK_OF_LFS,
    ".git/hooks/pre-push": HOOK_OF_LFS_3_3,
    f".git/objects/ab/{'c' * 38}": b"x",
    f".git/lfs/objects/ab/cd/{'e' * 64}": b"x",
    ".git/refs/heads/main": b"0" * 40,
    ".git/logs/refs/remotes/origin/HEAD": b"x",
    ".cache/huggingface/.gitignore": b"*",
    ".cache/huggingface/download/provenance/a.json.metadata": b"x",
    ".cache/huggingface/download/model.safetensors.lock": b"",
    "figures/.DS_Store": b"\0\0\0\1Bud1",
    "._model.safetensors": b"\0\x05\x16\x07",
    "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "desktop.ini": b"[.ShellClassInfo]",
}


def leave(folder):
    """Put into the folder what a clone, a download and desktops leave."""
    for name, text in LEFT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
