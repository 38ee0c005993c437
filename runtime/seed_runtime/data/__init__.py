"""Data files (`.npz`, `.npy`): what `--input` and `--calib` read, a call at a time and never more than is planned."""
