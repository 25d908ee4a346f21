"""What csjd's own tests use, for the tests of programs built on it."""
