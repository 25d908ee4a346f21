"""What csjd is good for, as programs to run and read; `python -m examples.<name>`."""
