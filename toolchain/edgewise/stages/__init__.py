"""The stages: export, prune, quantize, build, verify, profile. The single verbs and ``convert`` run these same functions."""
