"""Tar shards: where they are, what is in them, one after another or at random, never unpacked."""
