"""What runs inside the sandbox. Each file works in a folder of its own, without this package."""
