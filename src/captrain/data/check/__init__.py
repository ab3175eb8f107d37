"""Looking over a data set before it is trained on: `check.check_data` tells the whole."""
