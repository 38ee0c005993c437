"""Export a PyTorch module with a batch of any size, and compare the seed's outputs with the module's.

Needs pip install 'seed-runtime[export,torch]'.

Prints:
    model.seed: 26.4 KB for 8,000 weights, bit for bit
    largest difference for a batch of 5: 8.2e-08
"""

from __future__ import annotations

import numpy as np
import torch

import seed_exporter
import seed_runtime

torch.manual_seed(0)
module = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16 * 7 * 7, 10)
).eval()
example = torch.zeros(2, 1, 16, 16)
batch = torch.export.Dim("batch")

options = seed_exporter.Options(method="lossless")
result = seed_exporter.export(
    module, (example,), output="model.seed", options=options, dynamic_shapes=({0: batch},), input_names=["pixels"]
)
facts = result.as_json()
print(f"model.seed: {facts['bytes'] / 1000:.1f} KB for {facts['parameters']:,} weights, bit for bit")

pixels = torch.rand(5, 1, 16, 16)
with seed_runtime.open("model.seed").session() as session:
    (output,) = session.run({"pixels": pixels.numpy()}).values()
with torch.no_grad():
    difference = np.abs(output - module(pixels).numpy()).max()
print(f"largest difference for a batch of 5: {difference:.1e}")
