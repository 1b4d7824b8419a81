"""Many processes on one embedded store: what is promised when they count, die, fork, fill it, stand still or lose it."""
