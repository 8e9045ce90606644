"""Recurrences that are written step by step, as one operator."""
