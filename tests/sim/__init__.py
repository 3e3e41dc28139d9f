"""A whole cluster in one process: fake time, seeded faults, the real cores.

    python -m tests.sim 1234            one run, with a trace of what happened
    python -m tests.sim 0 1000          a thousand runs, the failing seeds listed

The broker, its scheduler, the links, the codec and the client's core are the
real ones.  Simulated are the network (`network`), the hosts around the links
(`ends`), executors and workers (`nodes`), users (`users`), and the weather
(`cluster`).  `ledger` keeps account of what truly happened to each task.
"""
