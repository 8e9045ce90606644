"""Removing whole parts of a network, so that its tensors shrink."""
