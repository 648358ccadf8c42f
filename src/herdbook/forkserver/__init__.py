"""Jobs of a build as forks of one process that has made their imports.

Each job of a build is a process of its own, and of a small model its imports (torch, transformers, lm-eval) take longer than its
work. On Linux, a build whose jobs run on the CPU of this machine therefore starts a server, which imports what a job needs when
the first of its kind comes, and forks a process for each. `herdbook` hands its arguments, folder, environment and open files to
the server, waits for the process, and ends as it does. Everything else stays as it is without a server: a job reads the plan anew,
is killed with its `herdbook`, and writes to the same log.
"""

VARIABLE = "HERDBOOK_FORKSERVER"  # the address of the build's server; empty for none
