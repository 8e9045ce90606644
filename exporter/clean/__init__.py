"""Passes that clean a traced or third-party graph without changing what it computes."""
