"""Features on disk: layout, shards, reading and writing. No torch."""
