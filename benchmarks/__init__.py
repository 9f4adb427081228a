"""Programs that measure: each prints both sides of a comparison, measured in turns, beside what must be reached."""
