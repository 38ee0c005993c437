"""Many exports from one file of jobs: on this machine's cores or on a Dask cluster, and only what has changed."""
