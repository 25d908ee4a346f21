"""What is behind `csjd.caching`."""
