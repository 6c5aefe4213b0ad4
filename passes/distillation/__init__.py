"""Teacher hooks: where a teacher's layers are tapped, and the losses that compare."""
