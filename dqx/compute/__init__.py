"""Programs over lanes and devices: compiled, measured, and run from the first step to the last."""
