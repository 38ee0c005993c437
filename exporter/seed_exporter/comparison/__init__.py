"""One model by many methods: seeds of several sizes beside what peers make of it."""
