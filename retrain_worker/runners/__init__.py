"""What runs a step of a job and guards it. `protocol` says what every runner does."""
