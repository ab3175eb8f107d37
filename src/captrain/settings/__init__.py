"""Every setting once: the schema, and how recipes and flags become checked settings."""
