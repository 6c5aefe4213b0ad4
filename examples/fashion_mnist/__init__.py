"""A small residual network on Fashion-MNIST."""
