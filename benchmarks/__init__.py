"""Side by side: planish and other runtimes, on the same networks, in the same process."""
