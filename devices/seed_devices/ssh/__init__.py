"""Connections to devices through the system's OpenSSH."""
