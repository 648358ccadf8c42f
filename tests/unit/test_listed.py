"""What Snakemake prints of its jobs, read back: written here as it prints it."""

import time

from listed import parents, read

DRY = """\
[Wed Nov 25 16:35:14 2026]
rule fetch:
    output: results/shards/a.safetensors, results/shards/a.json
    jobid: 7
    resources: tmpdir=/tmp, mem_mb=150, mem=150 MB, disk_mb=<TBD>, runtime=26
[Wed Nov 25 16:35:14 2026] Group job laser_copies (jobs in lexicogr. order):

    [Wed Nov 25 16:35:14 2026]
    rule laser:
        input: results/shards/a.safetensors, results/shards/a.json
        output: results/shards/b.safetensors, results/shards/b.json
        jobid: 3
        resources: mem_mb=20
    [Wed Nov 25 16:35:14 2026]
    rule laser:
        input: results/shards/a.safetensors, config/a.txt
        output: results/shards/c.safetensors
        jobid: 4
        threads: 4
        resources: mem_mb=20, gpu=1
[Wed Nov 25 16:35:15 2026] Group job laser_copies (jobs in lexicogr. order):

    [Wed Nov 25 16:35:15 2026]
    rule laser:
        output: results/shards/d.safetensors
        jobid: 5
[Wed Nov 25 16:35:15 2026]
rule assemble_some-model:
    input: results/shards/b.safetensors, results/shards/d.safetensors
    output: results/models/x
    jobid: 6
[Wed Nov 25 16:35:15 2026]
rule all:
    input: results/models/x
    jobid: 0
"""
LOG = """\
[Wed Nov 25 13:26:50 2026]
localrule fetch:
    output: a
    jobid: 6
    resources: tmpdir=/tmp
[Wed Nov 25 13:26:52 2026]
localrule files_some-model:
    output: b
    jobid: 2
[Wed Nov 25 13:27:32 2026]
Finished jobid: 6 (Rule: fetch)
1 of 3 steps (33%) done
[Wed Nov 25 13:27:35 2026]
Finished jobid: 2 (Rule: files_some-model)
[Wed Nov 25 13:27:35 2026]
Finished jobid: 0 (Rule: all)
"""


def test_jobs_have_what_a_dry_run_says_of_them():
    jobs = {job.number: job for job in read(DRY.splitlines())}
    assert {number: job.rule for number, job in jobs.items()} == {
        7: "fetch", 3: "laser", 4: "laser", 5: "laser", 6: "assemble",
    }  # fmt: skip
    assert jobs[7].resources == {"mem_mb": 150, "runtime": 26}
    assert (jobs[3].threads, jobs[4].threads, jobs[4].resources["gpu"]) == (1, 4, 1)
    assert [number for number, job in jobs.items() if job.local] == [6]
    assert jobs[3].group == jobs[4].group != jobs[5].group
    assert jobs[7].group is jobs[6].group is None
    assert jobs[5].group is not None


def test_a_job_waits_for_those_whose_files_it_reads():
    assert parents(read(DRY.splitlines())) == {7: set(), 3: {7}, 4: {7}, 5: set(), 6: {3, 5}}


def test_a_log_says_how_long_each_job_took():
    jobs = {job.rule: job for job in read(LOG.splitlines())}
    assert jobs.keys() == {"fetch", "files"}
    assert jobs["fetch"].ended - jobs["fetch"].started == 42
    assert jobs["files"].ended - jobs["files"].started == 43
    assert time.localtime(jobs["fetch"].started)[3:6] == (13, 26, 50)
    assert jobs["files"].local
