"""Captioners: `contract` says what each offers, `families` holds them, the rest is what they share."""
