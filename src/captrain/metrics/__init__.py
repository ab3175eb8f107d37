"""Caption scores as papers compute them, without Java: tokens, BLEU, CIDEr."""
