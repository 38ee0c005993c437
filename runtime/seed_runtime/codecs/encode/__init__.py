"""Encoders of the codecs that a device writes too: NumPy alone, in bounded memory."""
