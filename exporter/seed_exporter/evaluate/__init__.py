"""Run models, make inputs for them, compare outputs, measure memory."""
