"""What tuning found for common shapes, one JSON file a target."""
