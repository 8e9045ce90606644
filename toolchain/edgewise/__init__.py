"""edgewise: compile trained networks for the edge."""
