"""What matters: measurements behind docs/what-matters.md, one topic a module, and the page that is drawn from them.

A topic has `TITLE`, `section(records)`, the lines of its part of the page, and `charts(records)`, its drawings by name.
A topic that is measured here has `run(quick, data)` as well; a record of what it found stands in docs/what-matters.
"""
