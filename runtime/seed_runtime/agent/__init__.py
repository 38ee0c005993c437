"""The device's side of `seed-deploy`: what was pushed here, and an agent that changes it safely.

    python -m seed_runtime.agent agent                  speaks JSON lines on stdin and stdout, for seed-deploy
    python -m seed_runtime.agent status                 one operation by hand; --help lists them

Imports stay light: NumPy comes with the first operation that reads a seed's header, ONNX Runtime with the first
install.
"""
