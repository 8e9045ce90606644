"""What an app gets of a bundle: library, headers, engine and an example that links them."""
