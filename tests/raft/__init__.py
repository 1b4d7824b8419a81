"""The consensus core: units, rules, random schedules in a small cluster."""
