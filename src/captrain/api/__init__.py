"""The Python API: what `import captrain` offers, as complete as the command line. See `captrain.train` and its neighbours."""
