"""The journal and the snapshots: their parts, every crash, and a process that is killed."""
