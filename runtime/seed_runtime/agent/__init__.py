"""The device's half of `seed-deploy`: the models that were pushed here, and an agent that changes them safely.

    python -m seed_runtime.agent agent                  speaks JSON lines on stdin and stdout, for seed-deploy
    python -m seed_runtime.agent status                 one operation by hand; --help lists them

Imports stay light: NumPy is imported by the first operation that reads a seed's header, ONNX Runtime by the first
installation.
"""
