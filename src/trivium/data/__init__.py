"""Text to token rows: reading, cleaning, splitting, packing, objectives. Knows no model and no training."""
