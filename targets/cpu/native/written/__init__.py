"""Operators that are written out by others before they are lowered; a file for each kind."""
