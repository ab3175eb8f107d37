"""A training spread over several processes, on one machine or many: the same steps as in one process."""
