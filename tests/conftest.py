"""What holds for every test: no network, one thread a process unless more are asked for."""

import os

# Before torch or the hub's client is imported, by this process or by one that a test starts.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
