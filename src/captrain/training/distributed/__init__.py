"""Training in several processes, on one machine or many, with the same steps as in one process."""
