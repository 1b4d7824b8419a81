"""The suite that every engine must pass: same operations, same results."""
