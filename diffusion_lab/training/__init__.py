"""Training tasks, their callbacks, and a resumable run."""
