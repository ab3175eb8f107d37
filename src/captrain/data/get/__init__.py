"""Fetching known data sets: what there is (`catalogue`), one file over HTTP (`transfer`), archives, pictures by address, a plan."""
