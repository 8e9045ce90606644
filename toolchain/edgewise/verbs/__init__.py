"""The verbs: one function each, with the command line's options as arguments. ``edgewise.VERB`` gives them."""
