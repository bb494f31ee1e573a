"""The embedded world: procedural heads, and small models trained on them. A toy to learn with, never evidence."""
