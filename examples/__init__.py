"""Models and scripts that show planish at work; the demo uses them."""
