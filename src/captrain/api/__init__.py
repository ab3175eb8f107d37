"""The Python API: what `import captrain` offers, as complete as the command line. Start at `captrain.train`."""
