"""What train is made of: its loop, objective, optimizers and checkpoints."""
