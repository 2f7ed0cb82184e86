"""Readers of prompt files, one format family a file; all of them bounded: what a header declares is checked first."""
