"""What people save in place of models, seeds and data."""

from __future__ import annotations

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
PAGES = (
    b"<!DOCTYPE html>\n<html lang=en><title>Sign in</title></html>" + bytes(100),
    b"\n\n  <html><head></head></html>",
    b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    b'{"error": "Repository not found"}',
)
ARCHIVE = b"PK\x03\x04" + bytes(100)
