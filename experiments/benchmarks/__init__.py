"""Times and memory: what is measured, and what a model says it should be."""
