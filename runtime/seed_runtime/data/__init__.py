"""Data files (`.npz`, `.npy`) for `--input` and `--calib`, read one call at a time and never more than is planned."""
