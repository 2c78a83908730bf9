"""Hugging Face in and out: folders, hub names, and the table of architectures that trivium speaks."""
