"""Load, run, compare and profile bundles; what goes on the device. Imports with numpy alone."""
