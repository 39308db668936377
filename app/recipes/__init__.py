"""Recipes: read only, from the contract."""
