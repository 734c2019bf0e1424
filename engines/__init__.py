"""Recipes and tools that make the models Pennyweight serves; no service imports from here."""
