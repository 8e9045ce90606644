"""Passes on the graph, one file each. Those that decide write into a Plan; those that rewrite carry it out."""
