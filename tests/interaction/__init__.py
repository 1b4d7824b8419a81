"""Stories about consensus, as text: commands, and what came of them. See :mod:`.language`."""
