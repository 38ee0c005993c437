"""What files and processes share: atomic replacement, locks that end with their process, and user folders."""
