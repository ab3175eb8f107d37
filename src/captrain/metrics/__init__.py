"""Caption scores as papers compute them, without Java.

`captrain.metrics.score.score_captions` scores plain text; `tokenizer.tokenize`, `bleu.BleuScorer` and
`cider.CiderScorer` are its parts. Nothing here needs torch.
"""
