"""kt's clients over every engine: one table of expectations, models, bad input, embedded servers."""
