"""Parts of scripts/check_resume.py."""
