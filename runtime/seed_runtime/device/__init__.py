"""The agent's former name, which service units on devices and older hosts still use. See `seed_runtime.agent`."""
