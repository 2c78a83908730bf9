"""trivium: one toolkit for the whole life of a language model."""
