"""The simulator: clocks, disks and whatever else stands in for a machine, all of it decided by one random source."""
