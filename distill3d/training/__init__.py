"""Steps, runs and their folders."""
