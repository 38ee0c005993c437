"""The published ratios with the function kept: data, teachers, controls, and a check of the seeds that are kept."""
