"""Corpora by name: free text that ordinary packages ship, fetched by their clients, with a licence manifest."""
