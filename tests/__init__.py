"""The tests are a package so that they can share `tests.arm`."""
