"""Image features: computed by encoders, cached while training, stored for any number of pictures."""
