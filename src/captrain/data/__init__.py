"""Pictures and captions: read, checked, converted and changed for training."""
