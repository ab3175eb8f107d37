"""Fetching known data sets: what there is (`catalogue`), what would be done (`plan`), doing it (`fetch`)."""
