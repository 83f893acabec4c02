"""The implementations: each file one strategy, or one family of operations."""
