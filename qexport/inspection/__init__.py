"""What files hold, as plain values: checkpoints, artifacts, and what a model says about an image."""
