"""Lua scripts: what they see, what holds them in, and what becomes of what they write."""
