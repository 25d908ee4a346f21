"""What is behind `csjd.batching`."""
