"""A Swift package around a bundle's Core ML package: typed inputs and outputs, preprocessing, and a test with its samples."""
